import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createVerifier, InvalidTokenError, UnavailableError, type Verifier, type VerifierOptions } from '@ticketing/auth'
import { createTestIssuer } from '@ticketing/auth/testing'
import { Clock, deferred, errorOf, Remote } from './fixture.js'

const feedURL = 'http://auth/api/users/revocations'
const introspectionURL = 'http://auth/api/users/introspect'
const issuer = await createTestIssuer({ now: new Clock().now })

interface Setup { clock: Clock, feed: Remote, introspection: Remote, verifier: Verifier, problems: string[] }

function setup(options: VerifierOptions = {}): Setup {
  const clock = new Clock()
  const [feed, introspection] = [new Remote(), new Remote()]
  const problems: string[] = []
  const verifier = createVerifier({
    environment: {}, keys: issuer.keys, now: clock.now, revocationsUrl: feedURL, onProblem: (p) => problems.push(p.message),
    fetch: (input, init) => (input.startsWith(introspectionURL) ? introspection : feed).fetch(input, init), ...options,
  })
  return { clock, feed, introspection, verifier, problems }
}

const answer = (cursor: string, sessions: string[] = [], users: { id: string, before: number }[] = []) => ({ cursor, window: 960, sessions, users })
const token = (sid: string, claims = {}) => issuer.token({ sid, ...claims, exp: new Clock().ms / 1000 + 7200 })
const revoked = (promise: Promise<unknown>) => assert.rejects(promise, (err: InvalidTokenError) => err instanceof InvalidTokenError && /revoked/.test(String(err.cause)))

test('a sign-out is seen after five seconds, and with the next cursor', async () => {
  const { clock, feed, verifier } = setup()
  const [a, b, c] = await Promise.all(['0a', '0b', '0c'].map((sid) => token(sid)))
  feed.answer(answer('1/+', ['0a']))
  await revoked(verifier.verifyToken(a!))
  await verifier.verifyToken(b!)
  assert.deepEqual(feed.calls.map((call) => call.url.href), [feedURL])
  feed.answer(answer('2', ['0b']))
  clock.advance(4.999)
  await verifier.verifyToken(b!)
  clock.advance(0.001)
  await revoked(verifier.verifyToken(b!))
  await revoked(verifier.verifyToken(a!))
  await verifier.verifyToken(c!)
  assert.deepEqual(feed.calls.map((call) => call.url.searchParams.get('since')), [null, '1/+'])
  assert.equal(feed.calls[1]!.init.redirect, 'error')
})

test('a user: tokens from before the time are revoked', async () => {
  const { clock, feed, verifier } = setup()
  const now = clock.ms / 1000
  feed.answer(answer('1', [], [{ id: 'ann', before: now }]), answer('2', [], [{ id: 'ann', before: now - 100 }]))
  for (const seconds of [0, 5]) {
    clock.advance(seconds)
    await revoked(verifier.verifyToken(await token('0a', { iat: now - 1 })))
    await verifier.verifyToken(await token('0a', { iat: now }))
    await verifier.verifyToken(await token('0a', { iat: now - 1, sub: 'bob' }))
  }
})

test('an entry is stored for the window', async () => {
  const { clock, feed, verifier } = setup()
  const [a, b] = [await token('0a'), await token('0b')]
  feed.answer(answer('1', ['0a']), answer('2', ['0b']), answer('3'))
  await revoked(verifier.verifyToken(a))
  clock.advance(900)
  await revoked(verifier.verifyToken(a))
  await revoked(verifier.verifyToken(b))
  clock.advance(61)
  await verifier.verifyToken(a)
  await revoked(verifier.verifyToken(b))
})

test('100 requests wait for one answer', async () => {
  const { clock, feed, verifier } = setup()
  const tokens = await Promise.all(Array.from({ length: 100 }, () => token('0a')))
  const race = async (gate: { promise: Promise<void>, resolve: (v: void) => void }) => {
    const all = Promise.allSettled(tokens.map((t) => verifier.verifyToken(t)))
    gate.resolve()
    return (await all).map((r) => r.status)
  }
  for (const [i, seconds] of [0, 7].entries()) {
    clock.advance(seconds)
    const gate = deferred()
    feed.answer(async () => { await gate.promise; return Response.json(answer('1', ['0a'])) })
    assert.deepEqual(new Set(await race(gate)), new Set(['rejected']))
    assert.equal(feed.calls.length, i + 1)
  }
})

test('between five and seven seconds one request waits and the others use the copy', async () => {
  const { clock, feed, verifier } = setup()
  const a = await token('0a')
  feed.answer(answer('1'))
  await verifier.verifyToken(a)
  const gate = deferred()
  feed.answer(async () => { await gate.promise; return Response.json(answer('2', ['0a'])) })
  clock.advance(6.9)
  const first = verifier.verifyToken(a)
  await verifier.verifyToken(a)
  clock.advance(0.1)
  const late = verifier.verifyToken(a)
  gate.resolve()
  await revoked(first)
  await revoked(late)
  assert.equal(feed.calls.length, 2)
})

test('the age of an answer from a cache counts', async () => {
  const { clock, feed, verifier } = setup()
  const a = await token('0a')
  feed.answer(new Response(JSON.stringify(answer('1')), { headers: { Age: '2' } }), answer('2', ['0a']))
  await verifier.verifyToken(a)
  clock.advance(2.9)
  await verifier.verifyToken(a)
  clock.advance(0.1)
  await revoked(verifier.verifyToken(a))
})

test('an outage of the feed', async (t) => {
  const rows: [string, object][] = [
    ['no connection', new TypeError('fetch failed')],
    ['503', new Response('{}', { status: 503 })],
    ['no JSON', new Response('<html>')],
    ['a duplicate name', new Response('{"cursor":"1","cursor":"2","window":960,"sessions":[],"users":[]}')],
    ['more than 16 MiB', new Response(' '.repeat((16 << 20) + 1))],
    ['no cursor', { ...answer('') }],
    ['a long cursor', answer('x'.repeat(1025))],
    ['no window', { ...answer('2'), window: 0 }],
    ['a large window', { ...answer('2'), window: 172801 }],
    ['a window in text', { ...answer('2'), window: '960' }],
    ['no sessions', { ...answer('2'), sessions: undefined }],
    ['sessions and a filter', { ...answer('2'), filter: { hashes: 1, bits: 'AA' } }],
    ['a session that is a number', { ...answer('2'), sessions: [1] }],
    ['no users', { ...answer('2'), users: undefined }],
    ['a user without a time', { ...answer('2'), users: [{ id: 'ann' }] }],
    ['a filter without hashes', { ...answer('2'), sessions: undefined, filter: { bits: 'AA' } }],
    ['a filter of 33 hashes', { ...answer('2'), sessions: undefined, filter: { hashes: 33, bits: 'AA' } }],
    ['a filter without bits', { ...answer('2'), sessions: undefined, filter: { hashes: 1, bits: '' } }],
    ['a filter with padding', { ...answer('2'), sessions: undefined, filter: { hashes: 1, bits: 'AA==' } }],
  ]
  for (const [name, failure] of rows) {
    for (const strict of [false, true]) {
      await t.test(`${name}, ${strict ? 'strict' : 'not strict'}`, async () => {
        const { clock, feed, verifier, problems } = setup({ revocationsStrict: strict })
        const [a, b] = [await token('0a'), await token('0b')]
        feed.answer(answer('1', ['0a']))
        await verifier.verifyToken(b)
        feed.answer(failure)
        for (const seconds of [5, 4.9, 0.1, 5, 5, 5]) { // until the copy is 25 s old
          clock.advance(seconds)
          await revoked(verifier.verifyToken(a)) // the copy stays in use
          await verifier.verifyToken(b)
        }
        assert.equal(feed.calls.length, 1 + 5)
        clock.advance(5)
        if (strict) {
          const err = await errorOf(verifier.verifyToken(b))
          assert.ok(err instanceof UnavailableError)
          assert.equal(err.headers['Retry-After'], '5')
        } else await verifier.verifyToken(b)
        assert.equal(problems.length, 1)
        // After the outage.
        feed.answer(answer('2', ['0b']))
        clock.advance(5)
        await revoked(verifier.verifyToken(b))
        feed.answer(failure)
        clock.advance(5)
        await revoked(verifier.verifyToken(b))
        assert.equal(problems.length, 2)
      })
    }
  }
})

test('the feed is away at the first request', async () => {
  for (const strict of [false, true]) {
    const { clock, feed, verifier } = setup({ revocationsStrict: strict })
    const a = await token('0a')
    feed.answer(new TypeError('fetch failed'))
    for (let i = 0; i < 2; i++) {
      if (strict) assert.ok(await errorOf(verifier.verifyToken(a)) instanceof UnavailableError)
      else await verifier.verifyToken(a)
    }
    assert.equal(feed.calls.length, 1)
    feed.answer(answer('1', ['0a']))
    clock.advance(5)
    await revoked(verifier.verifyToken(a))
  }
})

test('after a failure and a time without requests, each request waits for the feed', async () => {
  const { clock, feed, verifier } = setup()
  const a = await token('0a')
  feed.answer(answer('1'), new TypeError('fetch failed'))
  for (const seconds of [0, 5]) {
    clock.advance(seconds)
    await verifier.verifyToken(a)
  }
  clock.advance(300)
  const gate = deferred()
  feed.answer(async () => { await gate.promise; return Response.json(answer('2', ['0a'])) })
  const all = Array.from({ length: 10 }, () => verifier.verifyToken(a))
  gate.resolve()
  for (const one of await Promise.allSettled(all)) assert.equal(one.status, 'rejected')
})

test('while the feed hangs, only the request that tries it waits', async () => {
  for (const strict of [false, true]) {
    const { clock, feed, verifier } = setup({ revocationsStrict: strict })
    const a = await token('0a')
    feed.answer(answer('1'), new TypeError('fetch failed'))
    for (const seconds of [0, 5]) { // from then on, the outage is known
      clock.advance(seconds)
      await verifier.verifyToken(a)
    }
    const gate = deferred()
    feed.answer(async () => { await gate.promise; throw new TypeError('fetch failed') })
    clock.advance(5)
    let waits = true
    const first = verifier.verifyToken(a).finally(() => { waits = false })
    await Promise.all(Array.from({ length: 100 }, () => verifier.verifyToken(a)))
    assert.ok(waits)
    gate.resolve()
    await first
    if (!strict) continue
    // A request that strict mode would reject waits too.
    const end = deferred()
    feed.answer(async () => { await end.promise; return Response.json(answer('2')) })
    clock.advance(20)
    const all = Promise.all(Array.from({ length: 100 }, () => verifier.verifyToken(a)))
    end.resolve()
    await all
  }
})

test('a cursor that the feed does not know', async () => {
  const { clock, feed, verifier } = setup()
  const [a, b] = [await token('0a'), await token('0b')]
  feed.answer(answer('1', ['0a']), new Response('{}', { status: 400 }), answer('9', ['0b']))
  await revoked(verifier.verifyToken(a))
  clock.advance(5)
  await revoked(verifier.verifyToken(b))
  await verifier.verifyToken(a) // the full answer replaces the copy
  assert.deepEqual(feed.calls.map((call) => call.url.search), ['', '?since=1', ''])
})

// The Go package has the same test, with the same filter: it contains 5e551000 to 5e551003.
const filter = { hashes: 10, bits: 'AgIEA4EIQAAgABCAGAEkAAIACYAAAAAAAABEAQBCAABAAAAAIAAACCAQABAAAAACAAAIQACIAAEAAAAABBAAAA' }
const filtered = (cursor: string) => ({ cursor, window: 960, users: [], filter })

test('a hit of the filter is asked by introspection', async () => {
  const { clock, feed, introspection, verifier } = setup({ introspectionUrl: introspectionURL, introspectionSecret: 'tickets:s:ecret' })
  feed.answer(filtered('1'))
  const hits = await Promise.all(['5e551000', '5e551001', '5e551002', '5e551003'].map((sid) => token(sid)))
  introspection.answer({ active: false })
  await verifier.verifyToken(await token('5e551004'))
  assert.equal(introspection.calls.length, 0)
  for (const hit of hits) await revoked(verifier.verifyToken(hit))
  assert.equal(introspection.calls.length, 4)
  const { body, headers, init } = introspection.calls[0]!
  assert.equal(init.method, 'POST')
  assert.equal(new URLSearchParams(body).get('token'), hits[0])
  assert.match(headers.get('content-type')!, /^application\/x-www-form-urlencoded/)
  assert.equal(headers.get('authorization'), 'Basic ' + Buffer.from('tickets:s:ecret').toString('base64'))
  // A negative answer is stored.
  introspection.answer(new TypeError('fetch failed'))
  clock.advance(60)
  await revoked(verifier.verifyToken(hits[0]!))
  assert.equal(introspection.calls.length, 4)
})

test('a positive answer of the introspection is stored for five seconds', async () => {
  const { clock, feed, introspection, verifier } = setup({ introspectionUrl: introspectionURL })
  feed.answer(filtered('1'))
  const a = await token('5e551000')
  const gate = deferred()
  introspection.answer(async () => { await gate.promise; return Response.json({ active: true }) })
  const all = Promise.all(Array.from({ length: 100 }, () => verifier.verifyToken(a)))
  gate.resolve()
  await all
  introspection.answer({ active: false })
  clock.advance(4.9)
  await verifier.verifyToken(a)
  assert.equal(introspection.calls.length, 1)
  assert.equal(introspection.calls[0]!.headers.get('authorization'), null)
  clock.advance(0.1)
  await revoked(verifier.verifyToken(a))
})

test('an introspection that fails', async (t) => {
  for (const [name, options, failure] of [
    ['no setting', {}, { active: true }],
    ['no connection', { introspectionUrl: introspectionURL }, new TypeError('fetch failed')],
    ['401', { introspectionUrl: introspectionURL }, new Response('{}', { status: 401 })],
    ['active in text', { introspectionUrl: introspectionURL }, { active: 'true' }],
    ['no member active', { introspectionUrl: introspectionURL }, {}],
  ] as [string, VerifierOptions, object][]) {
    for (const strict of [false, true]) {
      await t.test(`${name}, ${strict ? 'strict' : 'not strict'}`, async () => {
        const { clock, feed, introspection, verifier, problems } = setup({ ...options, revocationsStrict: strict })
        feed.answer(filtered('1'))
        introspection.answer(failure)
        const [a, b] = [await token('5e551000'), await token('5e551001')]
        const unsure = async (hit: string) => {
          if (!strict) return await verifier.verifyToken(hit)
          const err = await errorOf(verifier.verifyToken(hit))
          assert.ok(err instanceof UnavailableError)
          assert.equal(err.headers['Retry-After'], '5')
        }
        for (const seconds of [0, 4.9]) { // in the pause after a failure, no request asks
          clock.advance(seconds)
          for (const hit of [a, a, b]) await unsure(hit)
        }
        assert.equal(problems.length, 1)
        if (!options.introspectionUrl) return
        assert.equal(introspection.calls.length, 1)
        // After the pause one request asks, and the others do not wait for it.
        const [gate, asked] = [deferred(), deferred()]
        introspection.answer(async () => { asked.resolve(); await gate.promise; return Response.json({ active: false }) })
        clock.advance(0.1)
        const first = verifier.verifyToken(a)
        await asked.promise
        for (const hit of [a, b]) await unsure(hit)
        assert.equal(introspection.calls.length, 2)
        gate.resolve()
        await revoked(first)
        await revoked(verifier.verifyToken(b))
        assert.equal(problems.length, 1)
      })
    }
  }
})

test('a problem in the log contains no token, secret or URL', async (t) => {
  const lines: string[] = []
  t.mock.method(console, 'warn', (line: string) => lines.push(line))
  const { feed, introspection, verifier } = setup({ introspectionUrl: introspectionURL, introspectionSecret: 'tickets:hunter2', onProblem: undefined })
  feed.answer(filtered('1'))
  introspection.answer(new Response('', { status: 401 }))
  await verifier.verifyToken(await token('5e551000'))
  assert.deepEqual(lines.map((line) => JSON.parse(line)), [{
    level: 'WARN', subject: 'introspection', msg: 'a session of the revocation filter cannot be checked: its token is accepted', error: 'Error', status: 401,
  }])
})
