import assert from 'node:assert/strict'
import { readFileSync, writeFileSync, rmSync, mkdtempSync } from 'node:fs'
import { request as send } from 'node:http'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createVerifier, InvalidTokenError, SettingsError, UnavailableError, type Identity, type Verifier, type VerifierOptions } from '@ticketing/auth'
import { createTestIssuer } from '@ticketing/auth/testing'
import { Clock, deferred, errorOf, Remote, serve } from './fixture.js'

const clock = new Clock()
const issuer = await createTestIssuer({ now: clock.now })
const second = await createTestIssuer({ now: clock.now, alg: 'ES256' })
const problems: string[] = []
const base: VerifierOptions = { environment: {}, now: clock.now, onProblem: (p) => problems.push(p.message) }
const verifier = createVerifier({ ...base, keys: { keys: [...issuer.keys.keys, ...second.keys.keys] } })
const invalid = (promise: Promise<unknown>) => assert.rejects(promise, InvalidTokenError)

test('the tokens that the Go verifier is tested with', async (t) => {
  const table = JSON.parse(readFileSync(new URL('../../../bearer/testdata/tokens.json', import.meta.url), 'utf8')) as {
    issuer: string, audience: string, now: number, jwks: { keys: object[] }, tokens: { name: string, token: string, accepted: boolean }[]
  }
  assert.ok(table.tokens.length > 300)
  const verifier = createVerifier({ ...base, keys: table.jwks, issuer: table.issuer, audience: table.audience, now: () => table.now * 1000 })
  for (const { name, token, accepted } of table.tokens) {
    await t.test(name, async () => {
      for (const call of ['first', 'repeated']) {
        const got = await verifier.verifyToken(token).then(() => true, (err) => { assert.ok(err instanceof InvalidTokenError, String(err)); return false })
        assert.equal(got, accepted, `${call}: ${token}`)
      }
    })
  }
})

test('the identity of a token', async () => {
  const iat = clock.ms / 1000
  const common = { id: 'ann', email: 'ann@example.com', sessionId: '0a', tokenId: 'j', issuedAt: new Date(clock.ms), expiresAt: new Date(clock.ms + 900_000) }
  const full = { client_id: 'web', roles: ['admin'], amr: ['pwd', 'otp'], acr: 'aal2', email_verified: true, auth_time: iat - 60 }
  const none = Object.fromEntries(Object.keys(full).map((name) => [name, undefined]))
  for (const [name, claims, want] of [
    ['all claims', full, { emailVerified: true, clientId: 'web', roles: ['admin'], amr: ['pwd', 'otp'], acr: 'aal2', authTime: new Date(clock.ms - 60_000) }],
    ['an older issuer', none, { emailVerified: false, clientId: undefined, roles: [], amr: [], acr: undefined, authTime: undefined }],
  ] as const) {
    const identity = await verifier.verifyToken(await issuer.token({ sid: '0a', jti: 'j', ...claims }))
    assert.deepEqual(identity, { ...common, ...want }, name)
  }
  for (const claims of <any[]>[{ roles: 'admin' }, { roles: [1] }, { amr: 'pwd' }, { acr: 1 }, { email_verified: 'true' }, { auth_time: '1' }, { client_id: 1 }]) {
    await invalid(verifier.verifyToken(await issuer.token(claims)))
  }
})

test('the Authorization header', async (t) => {
  const token = await issuer.token()
  const rows: [string, string[], 'ann' | null | 'invalid'][] = [
    ['no header', [], null],
    ['an empty header', [''], null],
    ['another scheme', ['Basic ' + token], null],
    ['a scheme with commas', ['Digest username="ann", realm="bearer x"'], null],
    ['a token alone', [token], null],
    ['a longer scheme', ['Bearers ' + token], null],
    ['a bearer token', ['Bearer ' + token], 'ann'],
    ['another case and two spaces', ['bEARER  ' + token], 'ann'],
    ['a scheme alone', ['Bearer'], 'invalid'],
    ['a scheme with a space', ['Bearer '], 'invalid'],
    ['a token that more follows', [`Bearer ${token} x`], 'invalid'],
    ['two tokens', [`Bearer ${token}, Bearer ${token}`], 'invalid'],
    ['a token after another scheme', [`Basic ${token}, Bearer ${token}`], 'invalid'],
    ['two headers', ['Bearer ' + token, 'Bearer ' + token], 'invalid'],
    ['a header of another scheme first', ['Basic x', 'Bearer ' + token], 'invalid'],
    ['a second, empty header', ['Bearer ' + token, ''], 'invalid'],
    ['a token over 8 KiB', ['Bearer ' + 'a'.repeat(8193)], 'invalid'],
    ['words', ['Bearer of good news'], 'invalid'],
    ['spaces and tabs around the value', [` \tBearer \t ${token}\t `], 'ann'],
    ['spaces and tabs alone', [' \t '], null],
    ['a no-break space before the scheme', ['\u00a0Bearer ' + token], null],
    ['a no-break space after the scheme', ['Bearer\u00a0' + token], null],
    ['a no-break space after the token', [`Bearer ${token}\u00a0`], 'invalid'],
  ]
  const verdict = (promise: Promise<Identity | null>) => promise.then((identity) => identity?.id ?? null, (err) => { assert.ok(err instanceof InvalidTokenError); return 'invalid' })
  const url = await serve(t, async (req, res) => { res.end(JSON.stringify(await verdict(verifier.verify(req)))) })
  for (const [name, values, want] of rows) {
    await t.test(name, async () => {
      const [response] = await once(send(url, { headers: ['Host', 'x', ...values.flatMap((value) => ['aUTHORIZATION', value])] }).end(), 'response')
      assert.equal(JSON.parse((await response.toArray()).join('')), want, 'IncomingMessage')
      // Fetch joins two headers, so that a header behind one of another scheme cannot be recognised without its scheme.
      const headers = new Headers(values.map((value) => ['Authorization', value] as [string, string]))
      if (name !== 'a second, empty header') assert.equal(await verdict(verifier.verify(new Request(url, { headers }))), want, 'Request')
      assert.equal(await verdict(verifier.verify({ headers: { authorization: values.length > 1 ? values : values[0] } })), want, 'plain headers')
    })
  }
})

// In quadratic time, this test takes more than ten minutes.
test('a run of a million spaces in the Authorization header', async () => {
  const run = ' '.repeat(1 << 20)
  const token = await issuer.token()
  for (const [value, want] of [
    [run + token + run, null],
    [`${run}Bearer${run}${token}${run}`, 'ann'],
    [`Basic x${run}y`, null],
    [`Basic x,${run}y`, null],
  ] as const) {
    for (const headers of [{ authorization: value }, new Headers({ authorization: value })]) assert.equal((await verifier.verify({ headers }))?.id ?? null, want)
  }
  await invalid(verifier.verify({ headers: { authorization: `Bearer ${token}${run}x` } })) // longer than 8 KiB
})

test('a repeated token is checked again', async () => {
  const clock = new Clock()
  const verifier = createVerifier({ ...base, keys: issuer.keys, now: clock.now })
  const token = await issuer.token({ exp: clock.ms / 1000 + 60 })
  const identity = await verifier.verifyToken(token)
  // A caller's change does not reach the cache.
  identity.id = 'bob'
  for (const date of [identity.authTime!, identity.issuedAt, identity.expiresAt]) date.setTime(0)
  assert.throws(() => (identity.roles as string[]).push('admin'))
  const repeated = await verifier.verifyToken(token)
  assert.equal(repeated.id, 'ann')
  assert.deepEqual([repeated.authTime, repeated.issuedAt, repeated.expiresAt].map(Number), [clock.ms, clock.ms, clock.ms + 60_000])
  clock.advance(60)
  await invalid(verifier.verifyToken(token))
})

test('settings', async (t) => {
  const VERIFYING_KEYS = issuer.environment.VERIFYING_KEYS!
  const folder = mkdtempSync(join(tmpdir(), 'auth-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const missing = join(folder, 'missing')
  const key = issuer.keys.keys[0] as Record<string, unknown>
  const keySet = (...keys: unknown[]) => JSON.stringify({ keys })
  const rows: [Record<string, string>, ...string[]][] = [
    [{}, 'VERIFYING_KEYS, VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL is not set'],
    [{ VERIFYING_KEYS: ' \n' }, 'VERIFYING_KEYS, VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL is not set'],
    [{ VERIFYING_KEYS, VERIFYING_KEYS_FILE: missing }, 'VERIFYING_KEYS and VERIFYING_KEYS_FILE are both set'],
    [{ VERIFYING_KEYS_FILE: missing }, 'VERIFYING_KEYS_FILE names a file that cannot be read'],
    [{ VERIFYING_KEYS: 'hunter2' }, 'VERIFYING_KEYS is not well-formed JSON of a JWK Set'],
    [{ VERIFYING_KEYS: '[]' }, 'VERIFYING_KEYS is not well-formed JSON of a JWK Set'],
    [{ VERIFYING_KEYS: '{"keys":[],"keys":[]}' }, 'VERIFYING_KEYS is not well-formed JSON of a JWK Set'],
    [{ VERIFYING_KEYS: '{}' }, 'VERIFYING_KEYS is not a JWK Set'],
    [{ VERIFYING_KEYS: keySet() }, 'VERIFYING_KEYS has no key for EdDSA or ES256'],
    [{ VERIFYING_KEYS: keySet({ kty: 'RSA', n: 'x', e: 'AQAB', kid: '1' }) }, 'VERIFYING_KEYS has no key for EdDSA or ES256'],
    [{ VERIFYING_KEYS: keySet({ ...key, alg: 'ES256' }) }, 'VERIFYING_KEYS has no key for EdDSA or ES256'],
    [{ VERIFYING_KEYS: keySet({ ...key, use: 'enc' }) }, 'VERIFYING_KEYS has no key for EdDSA or ES256'],
    [{ VERIFYING_KEYS: keySet(null) }, 'VERIFYING_KEYS has a key 1 that is not a JWK'],
    [{ VERIFYING_KEYS: keySet({ ...key, d: 'hunter2' }) }, 'VERIFYING_KEYS has a private key 1: use the public set'],
    [{ VERIFYING_KEYS: keySet({ kty: 'oct', k: 'hunter2', kid: '1' }) }, 'VERIFYING_KEYS has a private key 1: use the public set'],
    [{ VERIFYING_KEYS: keySet({ ...key, kid: 7 }) }, 'VERIFYING_KEYS has a key 1 without a kid'],
    [{ VERIFYING_KEYS: keySet(key, key) }, 'VERIFYING_KEYS has the kid of key 2 twice'],
    [{ VERIFYING_KEYS: keySet({ ...key, x: 'AAAA' }) }, 'VERIFYING_KEYS has a key 1 that is not valid'],
    [{ VERIFYING_KEYS: keySet({ kty: 'EC', crv: 'P-256', x: key.x, y: key.x, kid: '1' }) }, 'VERIFYING_KEYS has a key 1 that is not valid'],
    [{ VERIFYING_KEYS_URL: 'ftp://x' }, 'VERIFYING_KEYS_URL is not an http or https URL without a user, a query and a fragment'],
    [{
      VERIFYING_KEYS, REVOCATIONS_URL: 'http://ann:hunter2@x', REVOCATIONS_STRICT: 'yes', INTROSPECTION_URL: 'x?hunter2', INTROSPECTION_SECRET: 'hunter2',
    }, 'REVOCATIONS_URL is not an http or https URL without a user, a query and a fragment', 'REVOCATIONS_STRICT is not on or off',
    'INTROSPECTION_URL is not an http or https URL without a user, a query and a fragment', 'INTROSPECTION_SECRET is not name:secret in ASCII without spaces'],
    [{ VERIFYING_KEYS, REVOCATIONS_STRICT: 'on', INTROSPECTION_SECRET: 'a:b' }, 'REVOCATIONS_STRICT needs REVOCATIONS_URL', 'INTROSPECTION_SECRET needs INTROSPECTION_URL'],
  ]
  for (const [environment, ...want] of rows) {
    assert.throws(() => createVerifier({ environment }), (err) => {
      assert.ok(err instanceof SettingsError)
      assert.deepEqual(err.problems, want)
      for (const problem of want) assert.ok(err.message.includes(problem))
      assert.doesNotMatch(err.message, /hunter2/)
      return true
    })
  }
  const trimmed = createVerifier({ ...base, environment: { VERIFYING_KEYS: VERIFYING_KEYS + '\n', TOKEN_ISSUER: ' shop \n', TOKEN_AUDIENCE: '' } })
  assert.equal((await trimmed.verifyToken(await issuer.token({ iss: 'shop' }))).id, 'ann')
  await invalid(trimmed.verifyToken(await issuer.token()))
  // An option for keys replaces all settings for keys.
  createVerifier({ ...base, keys: issuer.keys, environment: { VERIFYING_KEYS_FILE: missing } })
})

test('an unusable key is reported, and the other keys are used', async (t) => {
  const key = issuer.keys.keys[0] as Record<string, unknown>
  const unusable = [null, { ...key, d: 'hunter2' }, { ...key, kid: '' }, { ...key, kid: 'bad', x: 'AAAA' }]
  const keys = { keys: [...unusable, { kty: 'RSA', n: 'x', e: 'AQAB', kid: '1' }, key] }
  const want = ['a key 1 that is not a JWK', 'a private key 2: use the public set', 'a key 3 without a kid', 'a key 4 that is not valid']
  const folder = mkdtempSync(join(tmpdir(), 'auth-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const keysFile = join(folder, 'verifying.jwks')
  writeFileSync(keysFile, JSON.stringify(keys))
  for (const [name, source] of [['VERIFYING_KEYS', { keys: JSON.stringify(keys) }], ['the file of the keys', { keysFile }], ['the fetched key set', { keysUrl: 'http://auth/jwks' }]] as const) {
    const clock = new Clock()
    const remote = new Remote().answer(keys)
    problems.length = 0
    const verifier = createVerifier({ ...base, ...source, fetch: remote.fetch, now: clock.now })
    for (const seconds of [0, 600]) { // a second look at the same set reports nothing
      clock.advance(seconds)
      await verifier.verifyToken(await issuer.token())
    }
    assert.deepEqual(problems, want.map((problem) => `${name} has ${problem}: the key is not used`))
  }
})

test('keys of a file: a rotation needs no restart', async (t) => {
  const clock = new Clock()
  const folder = mkdtempSync(join(tmpdir(), 'auth-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const keysFile = join(folder, 'verifying.jwks')
  const write = (...keys: object[]) => writeFileSync(keysFile, JSON.stringify({ keys }))
  write(...issuer.keys.keys)
  problems.length = 0
  const verifier = createVerifier({ ...base, keysFile, now: clock.now })
  const [old, next, third] = [await issuer.token(), await second.token(), await (await createTestIssuer({ now: clock.now })).token()]
  await verifier.verifyToken(old)
  write(...issuer.keys.keys, ...second.keys.keys)
  const all = await Promise.all(Array.from({ length: 100 }, () => verifier.verifyToken(next)))
  assert.equal(all.length, 100)
  // An unknown kid reads the file again after 30 s only.
  await invalid(verifier.verifyToken(third))
  writeFileSync(keysFile, '{')
  clock.advance(30)
  await verifier.verifyToken(old)
  await verifier.verifyToken(next)
  assert.deepEqual(problems, ['the file of the keys cannot be read: the old keys stay in use'])
  // A withdrawn key is refused, also for a token in the cache.
  write(...second.keys.keys)
  clock.advance(30)
  await invalid(verifier.verifyToken(old))
  await verifier.verifyToken(next)
})

test('keys of a URL', async (t) => {
  await t.test('one request for 100 tokens', async () => {
    const remote = new Remote()
    const gate = deferred()
    remote.answer(async () => { await gate.promise; return Response.json(issuer.keys) })
    const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch })
    const tokens = await Promise.all(Array.from({ length: 100 }, () => issuer.token()))
    const all = Promise.all(tokens.map((token) => verifier.verifyToken(token)))
    gate.resolve()
    assert.equal((await all).length, 100)
    assert.equal(remote.calls.length, 1)
    assert.equal(remote.calls[0]!.init.redirect, 'error')
    assert.ok(remote.calls[0]!.init.signal)
  })

  await t.test('an unknown kid fetches at most every 30 s', async () => {
    const clock = new Clock()
    const remote = new Remote().answer(issuer.keys)
    const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch, now: clock.now })
    const [known, unknown] = [await issuer.token(), await second.token()]
    await verifier.verifyToken(known)
    for (let i = 0; i < 3; i++) await invalid(verifier.verifyToken(unknown))
    assert.equal(remote.calls.length, 1)
    remote.answer({ keys: [...issuer.keys.keys, ...second.keys.keys] })
    clock.advance(30)
    await Promise.all(Array.from({ length: 100 }, () => verifier.verifyToken(unknown)))
    await verifier.verifyToken(known)
    assert.equal(remote.calls.length, 2)
  })

  await t.test('the URL is asked only for a kid that the mounted set lacks', async () => {
    const remote = new Remote().answer(second.keys)
    const verifier = createVerifier({ ...base, keys: issuer.keys, keysUrl: 'http://auth/jwks', fetch: remote.fetch })
    await verifier.verifyToken(await issuer.token())
    assert.equal(remote.calls.length, 0)
    await verifier.verifyToken(await second.token())
    assert.equal(remote.calls.length, 1)
  })

  await t.test('old keys verify for 24 h while the URL is away', async () => {
    const clock = new Clock()
    const remote = new Remote().answer(issuer.keys)
    problems.length = 0
    const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch, now: clock.now })
    const token = await issuer.token({ exp: clock.ms / 1000 + 48 * 3600 })
    await verifier.verifyToken(token)
    remote.answer(new Error('away'))
    for (const seconds of [300, 29, 1, 23 * 3600]) {
      clock.advance(seconds)
      await verifier.verifyToken(token)
    }
    assert.equal(remote.calls.length, 4) // not after 29 s
    assert.deepEqual(problems, ['the keys cannot be fetched'])
    const err = await errorOf(verifier.verifyToken(await second.token()))
    assert.ok(err instanceof UnavailableError) // the kid may be a new one
    assert.equal(err.headers['Retry-After'], '30')
    clock.advance(3600)
    assert.ok(await errorOf(verifier.verifyToken(token)) instanceof UnavailableError)
    remote.answer(issuer.keys)
    clock.advance(1)
    await verifier.verifyToken(token)
  })

  await t.test('a withdrawn key is refused after five minutes', async () => {
    const clock = new Clock()
    const remote = new Remote().answer(issuer.keys)
    const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch, now: clock.now })
    const token = await issuer.token()
    await verifier.verifyToken(token)
    remote.answer(second.keys)
    clock.advance(300)
    await invalid(verifier.verifyToken(token))
  })

  // Starts a request that fetches the keys, and two concurrent ones. Returns whether these end before the fetch.
  async function beside(verifier: Verifier, remote: Remote, token: string, answer: () => Response): Promise<{ waits: boolean, verdicts: string[] }> {
    const [gate, asked] = [deferred(), deferred()]
    remote.answer(async () => { asked.resolve(); await gate.promise; return answer() })
    const verify = () => verifier.verifyToken(token).then(() => 'accepted', (err: Error) => err.name)
    const first = verify()
    await asked.promise
    let waits = true
    const others = [verify(), verify()].map((other) => other.finally(() => { waits = false }))
    await new Promise(setImmediate) // a request that does not wait has ended
    const result = waits
    gate.resolve()
    return { waits: result, verdicts: await Promise.all([first, ...others]) }
  }

  for (const failures of [0, 1]) {
    await t.test(`a key that is withdrawn in a time without requests is refused, after ${failures} failures`, async () => {
      const clock = new Clock()
      const remote = new Remote().answer(issuer.keys)
      const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch, now: clock.now })
      const token = await issuer.token({ exp: clock.ms / 1000 + 48 * 3600 })
      await verifier.verifyToken(token)
      remote.answer(new Error('away'))
      clock.advance(300)
      if (failures) await verifier.verifyToken(token)
      clock.advance(300)
      assert.deepEqual(await beside(verifier, remote, token, () => Response.json(second.keys)), { waits: true, verdicts: Array(3).fill('InvalidTokenError') })
    })
  }

  await t.test('requests beside a fetch do not wait for ten minutes, and in an outage for 24 h', async () => {
    const clock = new Clock()
    const remote = new Remote().answer(issuer.keys)
    const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch, now: clock.now })
    const token = await issuer.token({ exp: clock.ms / 1000 + 48 * 3600 })
    await verifier.verifyToken(token)
    const away = () => new Response('', { status: 503 })
    clock.advance(599)
    assert.deepEqual(await beside(verifier, remote, token, away), { waits: false, verdicts: Array(3).fill('accepted') })
    for (let i = 0; i < 4; i++) {
      clock.advance(299)
      assert.deepEqual(await beside(verifier, remote, token, away), { waits: false, verdicts: Array(3).fill('accepted') })
    }
    const calls = remote.calls.length
    clock.advance(29)
    await verifier.verifyToken(token)
    assert.equal(remote.calls.length, calls)
    clock.advance(24 * 3600 - 599 - 4 * 299 - 29 - 60)
    await verifier.verifyToken(token)
    clock.advance(60)
    assert.deepEqual(await beside(verifier, remote, token, away), { waits: true, verdicts: Array(3).fill('UnavailableError') })
  })

  for (const [name, answer] of [
    ['a status other than 200', () => new Response('{}', { status: 500 })],
    ['no JSON', () => new Response('<html>')],
    ['no keys', () => Response.json({ keys: [] })],
    ['a private key', () => Response.json({ keys: [{ ...issuer.keys.keys[0], d: 'x' }] })],
    ['more than 256 KiB', () => new Response(JSON.stringify(issuer.keys) + ' '.repeat(256 << 10))],
    ['no body', () => new Response(null)],
  ] as const) {
    await t.test(`an answer with ${name} is a failure`, async () => {
      const clock = new Clock()
      const remote = new Remote().answer(answer, issuer.keys)
      const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch, now: clock.now })
      const token = await issuer.token()
      const err = await errorOf(verifier.verifyToken(token))
      assert.ok(err instanceof UnavailableError)
      assert.equal(err.retryAfter, 1)
      assert.ok(await errorOf(verifier.verifyToken(token)) instanceof UnavailableError)
      assert.equal(remote.calls.length, 1)
      clock.advance(1)
      await verifier.verifyToken(token)
    })
  }

  await t.test('a redirect is a failure, with the real fetch', async (t) => {
    const url = await serve(t, (req, res) => {
      if (req.url === '/') res.writeHead(302, { Location: '/keys' }).end()
      else res.end(JSON.stringify(issuer.keys))
    })
    const token = await issuer.token()
    assert.ok(await errorOf(createVerifier({ ...base, keysUrl: url }).verifyToken(token)) instanceof UnavailableError)
    assert.equal((await createVerifier({ ...base, keysUrl: url + '/keys' }).verifyToken(token)).id, 'ann')
  })
})

test('a clock that is set back does not stop the refresh of the keys', async () => {
  const clock = new Clock()
  const remote = new Remote().answer(issuer.keys)
  const verifier = createVerifier({ ...base, keysUrl: 'http://auth/jwks', fetch: remote.fetch, now: clock.now })
  await verifier.verifyToken(await issuer.token())
  clock.advance(-20)
  remote.answer({ keys: [...issuer.keys.keys, ...second.keys.keys] })
  assert.equal((await verifier.verifyToken(await second.token())).id, 'ann')
})
