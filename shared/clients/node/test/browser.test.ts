import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import {
  ApiError, createClient, RateLimitError, StepUpRequiredError, UnavailableError, type Channel, type Client, type ClientOptions, type ClientStorage, type User,
} from '@ticketing/auth/browser'
import { Clock, deferred, errorOf, serve } from './fixture.js'

const origin = 'http://auth.example'
const json = (status: number, body: unknown, headers: Record<string, string> = {}) => new Response(JSON.stringify(body), { status, headers })
const unauthorized = (message = 'The token is not valid.') => json(401, { errors: [{ message }] }, { 'WWW-Authenticate': 'Bearer error="invalid_token"' })

/** A Platform answers as the functions do: refresh tokens rotate, and a used one ends the session. */
class Platform {
  requests: { method: string, path: string, headers: Headers, body: any }[] = []
  sessions = new Map<string, { user: User, refresh: string, used: Map<string, { answer: object, at: number }>, access: string }>()
  accounts = new Map<string, { key: string | null, user: User }>()
  /** Runs before an answer. It can return another response, or throw. */
  before: (path: string) => Response | void | Promise<Response | void> = () => {}
  /** Runs after the platform has acted. It can throw: then the response is lost. */
  after: (path: string) => void = () => {}
  #count = 0

  constructor(readonly clock: Clock) {}

  count(path: string): number { return this.requests.filter((r) => r.path === path).length }

  fetch = async (request: Request): Promise<Response> => {
    const path = new URL(request.url).pathname
    const text = await request.text()
    this.requests.push({ method: request.method, path, headers: request.headers, body: request.headers.get('content-type') === 'application/json' ? JSON.parse(text) : text })
    const other = await this.before(path)
    if (other) return other
    const response = this.#answer(path, this.requests.at(-1)!)
    this.after(path)
    return response
  }

  #grant(id: string): Response {
    const s = this.sessions.get(id)!
    s.access = `access-${++this.#count}`
    s.refresh = `refresh-${this.#count}`
    return json(200, { user: s.user, token: s.access, refreshToken: s.refresh, expiresIn: 900 })
  }

  #start(user: User): Response {
    const id = String(++this.#count)
    this.sessions.set(id, { user, refresh: '', used: new Map(), access: '' })
    return this.#grant(id)
  }

  #answer(path: string, { headers, body }: { headers: Headers, body: any }): Response {
    const bearer = headers.get('authorization')?.slice('Bearer '.length)
    const session = [...this.sessions].find(([, s]) => s.access === bearer)
    switch (path) {
      case '/api/users/signup': {
        const key = headers.get('idempotency-key')
        const known = this.accounts.get(body.email)
        if (known && known.key !== key) return json(400, { errors: [{ message: 'This email is in use.', field: 'email' }] })
        const user = known?.user ?? { id: `id-${body.email}`, email: body.email }
        this.accounts.set(body.email, { key, user })
        return this.#start(user)
      }
      case '/api/users/signin':
        if (body.password !== 'right') return json(401, { errors: [{ message: 'Email or password is wrong.' }] }, { 'WWW-Authenticate': 'Bearer' })
        return this.#start({ id: `id-${body.email}`, email: body.email })
      case '/api/users/refresh':
        for (const [id, s] of this.sessions) {
          if (s.refresh === body.refreshToken) {
            const grant = { ...s }
            const response = this.#grant(id)
            s.used.set(grant.refresh, { answer: { user: s.user, token: s.access, refreshToken: s.refresh, expiresIn: 900 }, at: this.clock.ms })
            return response
          }
          const used = s.used.get(body.refreshToken)
          if (used && this.clock.ms - used.at <= 10_000) return json(200, used.answer)
          if (used) this.sessions.delete(id) // theft
        }
        return unauthorized()
      case '/api/users/signout':
        if (!session) return unauthorized()
        this.sessions.delete(session[0])
        return json(200, { message: 'Signed out.' })
      case '/api/users/currentuser':
        if (!bearer) return json(200, { currentUser: null })
        return session ? json(200, { currentUser: session[1].user }) : unauthorized()
      default:
        return bearer && !session ? unauthorized() : json(200, { bearer: bearer ?? null, text: body })
    }
  }
}

/** A Browser has the locks, the channels and the storage of its tabs. */
class Browser {
  #queue: Promise<unknown> = Promise.resolve()
  #channels = new Set<Channel>()
  items = new Map<string, string>()
  storage: ClientStorage = {
    getItem: async (key) => this.items.get(key) ?? null,
    setItem: async (key, value) => { this.items.set(key, value) },
    removeItem: async (key) => { this.items.delete(key) },
  }

  locks = {
    request: (_name: string, _options: unknown, run: () => unknown) => {
      const result = this.#queue.then(run)
      this.#queue = result.catch(() => {})
      return result
    },
  } as unknown as LockManager

  channel(): Channel {
    const channel: Channel = {
      onmessage: null,
      postMessage: (data) => {
        const copy = structuredClone(data)
        for (const other of this.#channels) if (other !== channel) queueMicrotask(() => other.onmessage?.({ data: copy } as MessageEvent))
      },
      close: () => { this.#channels.delete(channel) },
    }
    this.#channels.add(channel)
    return channel
  }
}

interface Setup { clock: Clock, platform: Platform, browser: Browser, tab: (options?: Partial<ClientOptions>) => Client }

function setup(): Setup {
  const clock = new Clock()
  const platform = new Platform(clock)
  const browser = new Browser()
  const tab = (options: Partial<ClientOptions> = {}) => createClient({
    baseUrl: origin, fetch: platform.fetch, now: clock.now, storage: browser.storage, locks: browser.locks, channel: browser.channel(), ...options,
  })
  return { clock, platform, browser, tab }
}

const ann = { email: 'ann@example.com', password: 'right' }
const user = { id: 'id-ann@example.com', email: 'ann@example.com' }
const bearerOf = async (client: Client) => (await (await client.fetch('/api/tickets')).json()).bearer as string | null

test('sign in, use the session, sign out', async () => {
  const { platform, browser, tab } = setup()
  const client = tab()
  const changes: (string | null)[] = []
  const stop = client.onChange((u) => changes.push(u && u.id))
  assert.equal(await client.currentUser(), null)
  assert.equal(await bearerOf(client), null)
  const err = await errorOf(client.signIn({ ...ann, password: 'wrong' }))
  assert.ok(err instanceof ApiError)
  assert.deepEqual([err.status, err.message, err.errors], [401, 'Email or password is wrong.', [{ message: 'Email or password is wrong.' }]])
  assert.deepEqual(await client.signIn(ann), user)
  assert.deepEqual(await client.currentUser(), user)
  assert.match((await bearerOf(client))!, /^access-/)
  assert.doesNotMatch([...browser.items.values()].join(), /access-/)
  await client.signOut()
  assert.equal(platform.sessions.size, 0)
  assert.equal(browser.items.size, 0)
  assert.equal(await client.currentUser(), null)
  assert.equal(platform.count('/api/users/refresh'), 0)
  assert.deepEqual(changes, [user.id, null])
  stop()
  await client.signIn(ann)
  assert.equal(changes.length, 2)
})

test('signUp sends an Idempotency-Key, and repeats it after a lost response', async (t) => {
  await t.test('the client tries again', async () => {
    const { platform, tab } = setup()
    let lost = 2
    platform.after = () => { if (lost-- > 0) throw new TypeError('network') }
    assert.deepEqual(await tab().signUp(ann), user)
    const keys = platform.requests.map((r) => r.headers.get('idempotency-key'))
    assert.equal(keys.length, 3)
    assert.equal(new Set(keys).size, 1)
    assert.match(keys[0]!, /^[0-9a-f]{32}$/)
  })
  await t.test('the application tries again', async () => {
    const { platform, tab } = setup()
    const client = tab()
    platform.after = () => { throw new TypeError('network') }
    assert.ok(await errorOf(client.signUp(ann)) instanceof TypeError)
    platform.after = () => {}
    platform.before = () => json(503, { errors: [] }, { 'Retry-After': '1' })
    assert.ok(await errorOf(client.signUp(ann)) instanceof UnavailableError)
    platform.before = () => {}
    assert.deepEqual(await client.signUp(ann), user)
    // Another account, and an answered sign-up, have new keys.
    const err = await errorOf(client.signUp(ann))
    assert.deepEqual(err.errors, [{ message: 'This email is in use.', field: 'email' }])
    await client.signUp({ ...ann, email: 'bob@example.com' })
    assert.equal(new Set(platform.requests.map((r) => r.headers.get('idempotency-key'))).size, 3)
  })
})

test('the access token goes to the allowed origins only', async () => {
  const { platform, tab } = setup()
  const client = tab({ allowedOrigins: ['http://api.example'] })
  await client.signIn(ann)
  for (const [url, init, want] of [
    ['/x', {}, true],
    [origin + '/x', {}, true],
    [new URL(origin + '/x'), {}, true],
    [new Request(origin + '/x'), undefined, true],
    ['http://api.example/x', {}, true],
    ['http://evil.example/x', {}, false],
    ['http://auth.example.evil.example/x', {}, false],
    ['https://auth.example/x', {}, false],
    ['http://auth.example:81/x', {}, false],
    ['//evil.example/x', {}, false],
    ['\\\\evil.example/x', {}, false],
    ['/x', { headers: { Authorization: 'Basic x' } }, false],
  ] as [string | URL | Request, RequestInit | undefined, boolean][]) {
    await client.fetch(url, init)
    assert.equal(platform.requests.at(-1)!.headers.get('authorization')?.startsWith('Bearer ') ?? false, want, String(url))
  }
})

test('the access token is refreshed before it expires', async () => {
  const { clock, platform, tab } = setup()
  const client = tab()
  await client.signIn(ann)
  const first = await bearerOf(client)
  clock.advance(839)
  assert.equal(await bearerOf(client), first)
  clock.advance(1)
  const all = await Promise.all(Array.from({ length: 100 }, () => bearerOf(client)))
  assert.equal(new Set(all).size, 1)
  assert.notEqual(all[0], first)
  assert.equal(platform.count('/api/users/refresh'), 1)
})

test('a refresh that fails', async (t) => {
  const failures: [string, Platform['before'], (err: unknown) => boolean][] = [
    ['no connection', (path) => { if (path.endsWith('refresh')) throw new TypeError('network') }, (err) => err instanceof TypeError],
    ['429', (path) => (path.endsWith('refresh') ? json(429, { errors: [] }, { 'Retry-After': '7' }) : undefined), (err) => err instanceof RateLimitError && err.retryAfter === 7],
    ['503', (path) => (path.endsWith('refresh') ? json(503, { errors: [] }) : undefined), (err) => err instanceof UnavailableError && err.retryAfter === undefined],
    ['500', (path) => (path.endsWith('refresh') ? json(500, { errors: [] }) : undefined), (err) => err instanceof ApiError && err.status === 500],
  ]
  for (const [name, before, want] of failures) {
    await t.test(name, async () => {
      const { clock, platform, tab } = setup()
      const client = tab()
      await client.signIn(ann)
      platform.before = before
      clock.advance(840)
      assert.match((await bearerOf(client))!, /^access-/) // it is valid for another minute
      const tried = platform.count('/api/users/refresh')
      await bearerOf(client)
      assert.equal(platform.count('/api/users/refresh'), tried)
      clock.advance(60)
      assert.ok(want(await errorOf(client.fetch('/api/tickets'))))
      platform.before = () => {}
      assert.deepEqual(await client.currentUser(), user) // the user is still signed in
    })
  }
})

test('a lost response to a refresh is repeated', async () => {
  const { clock, platform, tab } = setup()
  const client = tab()
  await client.signIn(ann)
  clock.advance(900)
  let lost = 1
  platform.after = (path) => { if (path.endsWith('refresh') && lost-- > 0) throw new TypeError('network') }
  assert.deepEqual(await client.currentUser(), user)
})

test('401: the request is sent once more with a new token', async () => {
  const { platform, tab } = setup()
  const client = tab()
  await client.signIn(ann)
  for (const s of platform.sessions.values()) s.access = 'other'
  const post = () => client.fetch(new Request(origin + '/api/tickets', { method: 'POST', body: 'concert' }))
  const all = await Promise.all(Array.from({ length: 100 }, post))
  for (const response of all) assert.equal((await response.json()).text, 'concert')
  assert.equal(platform.count('/api/users/refresh'), 1)
  // A 401 that a new token does not change is returned.
  platform.before = (path) => (path === '/api/tickets' ? unauthorized() : undefined)
  const before = platform.count('/api/tickets')
  assert.equal((await post()).status, 401)
  assert.equal(platform.count('/api/tickets'), before + 2)
})

test('a session that has ended signs the user out', async () => {
  const { platform, browser, tab } = setup()
  const client = tab()
  await client.signIn(ann)
  const changes: unknown[] = []
  client.onChange((u) => changes.push(u))
  platform.sessions.clear()
  assert.equal((await client.fetch('/api/tickets')).status, 401)
  assert.equal(await client.currentUser(), null)
  assert.deepEqual(changes, [null])
  assert.equal(browser.items.size, 0)
})

test('typed errors of any route', async () => {
  const { platform, tab } = setup()
  const client = tab()
  await client.signIn(ann)
  const stepUp = (parameters: string) => json(401, { errors: [{ message: 'You must sign in again for this.' }] }, { 'WWW-Authenticate': `Bearer error="insufficient_user_authentication"${parameters}` })
  for (const [response, want] of [
    [stepUp(', acr_values="aal2"'), { name: 'StepUpRequiredError', acrValues: ['aal2'], maxAge: undefined }],
    [stepUp(', acr_values="aal2 phr", max_age="300"'), { name: 'StepUpRequiredError', acrValues: ['aal2', 'phr'], maxAge: 300 }],
    [stepUp(', max_age=300'), { name: 'StepUpRequiredError', acrValues: [], maxAge: undefined }],
    [json(429, {}, { 'Retry-After': '8' }), { name: 'RateLimitError', retryAfter: 8 }],
    [json(503, {}, { 'Retry-After': new Date(Date.now() - 5000).toUTCString() }), { name: 'UnavailableError', retryAfter: 0 }],
    [new Response('<html>', { status: 503 }), { name: 'UnavailableError', retryAfter: undefined }],
  ] as const) {
    platform.before = () => response
    const err = await errorOf(client.fetch('/api/tickets'))
    for (const [name, value] of Object.entries(want)) assert.deepEqual(err[name], value, name)
    assert.equal(err.response, response)
    assert.equal(err instanceof StepUpRequiredError, want.name === 'StepUpRequiredError')
  }
  assert.equal(platform.count('/api/users/refresh'), 0)
  platform.before = () => json(403, {})
  assert.equal((await client.fetch('/api/tickets')).status, 403)
})

test('tabs with one storage refresh once', async (t) => {
  for (const [name, options, refreshes] of [
    ['with locks and a channel', {}, 1],
    ['without locks', { locks: null }, 4],
    ['without a channel', { channel: null }, 4],
    ['without both', { locks: null, channel: null }, 4],
  ] as [string, Partial<ClientOptions>, number][]) {
    await t.test(name, async () => {
      const { clock, platform, tab } = setup()
      const tabs = Array.from({ length: 4 }, () => tab(options))
      await tabs[0]!.signIn(ann)
      for (let round = 0; round < 3; round++) {
        clock.advance(900)
        const before = platform.count('/api/users/refresh')
        const users = await Promise.all(tabs.flatMap((t) => [t.currentUser(), t.currentUser()]))
        for (const u of users) assert.deepEqual(u, user)
        assert.ok(platform.count('/api/users/refresh') - before <= refreshes)
      }
      assert.equal(platform.sessions.size, 1)
    })
  }
})

test('a new tab takes the access token of another one', async () => {
  const { platform, tab } = setup()
  const first = tab()
  await first.signIn(ann)
  assert.equal(await bearerOf(tab()), await bearerOf(first))
  assert.equal(platform.count('/api/users/refresh'), 0)
})

test('a reload keeps the session', async () => {
  const { platform, tab } = setup()
  const first = tab()
  await first.signIn(ann)
  first.close()
  assert.deepEqual(await tab().currentUser(), user)
  assert.equal(platform.count('/api/users/refresh'), 1)
})

test('a refresh token that another tab has used ends no session', async (t) => {
  await t.test('the other tab has stored the new one meanwhile', async () => {
    const { clock, platform, browser, tab } = setup()
    const [a, b] = [tab({ locks: null, channel: null }), tab({ locks: null, channel: null })]
    await a.signIn(ann)
    clock.advance(900)
    const gate = deferred()
    const waiting = deferred()
    let held = true
    platform.before = async (path) => {
      if (!held || !path.endsWith('refresh')) return
      held = false
      waiting.resolve()
      await gate.promise
      return unauthorized() // the platform no longer accepts it
    }
    const slow = b.currentUser()
    await waiting.promise
    await a.currentUser()
    gate.resolve()
    assert.deepEqual(await slow, user)
    assert.equal(platform.sessions.size, 1)
    assert.equal(browser.items.size, 1)
  })
  await t.test('a duplicated tab has a copy of the storage', async () => {
    const { clock, platform, browser, tab } = setup()
    const a = tab()
    await a.signIn(ann)
    const copy = new Browser()
    copy.items = new Map(browser.items)
    const b = tab({ storage: copy.storage })
    for (let i = 0; i < 3; i++) {
      clock.advance(900)
      assert.deepEqual(await a.currentUser(), user)
    }
    assert.deepEqual(await b.currentUser(), user)
    assert.deepEqual([...copy.items], [...browser.items])
    assert.equal(platform.sessions.size, 1)
  })
  await t.test('a duplicated tab that was closed opens again', async () => {
    for (const idle of [300, 900]) { // the access token of the first tab is valid, or expired
      const { clock, platform, browser, tab } = setup()
      const a = tab()
      await a.signIn(ann)
      const copy = new Browser()
      copy.items = new Map(browser.items)
      for (let i = 0; i < 3; i++) {
        clock.advance(900)
        await a.currentUser()
      }
      clock.advance(idle)
      assert.deepEqual(await tab({ storage: copy.storage }).currentUser(), user)
      assert.deepEqual(await a.currentUser(), user)
      assert.deepEqual([...copy.items], [...browser.items])
      assert.equal(platform.count('/api/users/refresh'), idle === 300 ? 3 : 4)
    }
  })
  await t.test('a tab remembers the last 100 tokens of its session', async () => {
    const { clock, platform, browser, tab } = setup()
    const a = tab()
    const copies: Browser[] = []
    const refresh = async () => {
      const copy = new Browser()
      copy.items = new Map(browser.items)
      copies.push(copy)
      clock.advance(900)
      await a.currentUser()
    }
    const open = async (copy: Browser) => {
      const before = platform.count('/api/users/refresh')
      const client = tab({ storage: copy.storage })
      return [await client.currentUser(), platform.count('/api/users/refresh') - before]
    }
    const bob = await a.signIn({ ...ann, email: 'bob@example.com' })
    await refresh()
    await a.signIn(ann)
    assert.deepEqual(await open(copies.pop()!), [bob, 1]) // not the session of ann
    for (let i = 0; i < 101; i++) await refresh()
    assert.deepEqual(await open(copies[1]!), [user, 0])
    assert.deepEqual(await open(copies[0]!), [null, 1])
  })
})

test('sign-out', async (t) => {
  await t.test('reaches the other tabs', async () => {
    const { tab } = setup()
    const [a, b] = [tab(), tab()]
    await a.signIn(ann)
    assert.deepEqual(await b.currentUser(), user)
    const signedOut = deferred<User | null>()
    b.onChange(signedOut.resolve)
    await a.signOut()
    assert.equal(await signedOut.promise, null)
    assert.equal(await bearerOf(b), null)
  })
  await t.test('with an expired token sends no refresh', async () => {
    const { clock, platform, tab } = setup()
    const client = tab()
    await client.signIn(ann)
    clock.advance(3600)
    await client.signOut()
    assert.equal(platform.sessions.size, 0)
    assert.equal(platform.count('/api/users/refresh'), 0)
  })
  await t.test('after a reload ends the session', async () => {
    const { platform, tab } = setup()
    const first = tab()
    await first.signIn(ann)
    first.close()
    await tab().signOut()
    assert.equal(platform.sessions.size, 0)
  })
  await t.test('without a connection forgets the session', async () => {
    const { platform, browser, tab } = setup()
    const client = tab()
    await client.signIn(ann)
    platform.before = () => { throw new TypeError('network') }
    assert.ok(await errorOf(client.signOut()) instanceof TypeError)
    assert.equal(browser.items.size, 0)
    assert.equal(await client.currentUser(), null)
  })
  await t.test('wins against a refresh in flight', async () => {
    const { clock, platform, browser, tab } = setup()
    const client = tab({ locks: null, channel: null })
    const other = tab({ locks: null, channel: null })
    await client.signIn(ann)
    clock.advance(900)
    const [gate, waiting] = [deferred(), deferred()]
    platform.before = async (path) => {
      if (!path.endsWith('refresh')) return
      platform.before = () => {}
      waiting.resolve()
      await gate.promise
    }
    const slow = other.currentUser()
    await waiting.promise
    await client.signOut()
    gate.resolve()
    assert.equal(await slow, null)
    assert.equal(browser.items.size, 0)
  })
  await t.test('with a token whose key was withdrawn ends the session', async () => {
    const { platform, browser, tab } = setup()
    const client = tab()
    await client.signIn(ann)
    const first = await bearerOf(client)
    platform.before = (path) => (path.endsWith('signout') && platform.requests.at(-1)!.headers.get('authorization') === `Bearer ${first}` ? unauthorized() : undefined)
    await client.signOut()
    assert.equal(platform.sessions.size, 0)
    assert.equal(browser.items.size, 0)
    assert.equal(platform.count('/api/users/refresh'), 1)
  })
  await t.test('of a session that has ended is no error', async () => {
    const { platform, browser, tab } = setup()
    const client = tab()
    await client.signIn(ann)
    platform.sessions.clear()
    await client.signOut()
    assert.equal(browser.items.size, 0)
    assert.equal(platform.count('/api/users/signout'), 1)
  })
  await t.test('in a page that missed a sign-in ends the session of the storage', async () => {
    const { platform, browser, tab } = setup()
    const [a, b] = [tab({ channel: null }), tab({ channel: null })]
    await a.signIn(ann)
    await b.signIn({ ...ann, email: 'bob@example.com' })
    await a.signOut()
    assert.deepEqual([...platform.sessions.values()].map((s) => s.user), [user])
    assert.equal(browser.items.size, 0)
  })
  await t.test('without a session sends no request', async () => {
    const { platform, tab } = setup()
    await tab().signOut()
    assert.equal(platform.requests.length, 0)
  })
})

test('a listener that throws stops neither the sign-out nor the other listeners and tabs', async (t) => {
  const reported = t.mock.method(console, 'error', () => {})
  const { platform, browser, tab } = setup()
  const [a, b] = [tab(), tab()]
  await a.signIn(ann)
  await b.currentUser()
  const told: unknown[] = []
  const signedOut = deferred<User | null>()
  a.onChange(() => { throw new Error('render') })
  a.onChange((u) => told.push(u))
  b.onChange(signedOut.resolve)
  await a.signOut()
  assert.equal(platform.sessions.size, 0)
  assert.equal(browser.items.size, 0)
  assert.deepEqual(told, [null])
  assert.equal(await signedOut.promise, null)
  assert.deepEqual(reported.mock.calls.map((call) => (call.arguments as unknown[]).map(String)), [['Error: render']])
})

test('a value in the storage that is not valid is no session', async () => {
  for (const value of ['', '{', 'null', '[]', '{"refreshToken":1}', '{"refreshToken":"x"}']) {
    const { platform, browser, tab } = setup()
    browser.items.set(`ticketing.auth ${origin}`, value)
    assert.equal(await tab().currentUser(), null)
    assert.equal(platform.requests.length, 0)
  }
})

test('the real BroadcastChannel, and the storage in memory', async (t: TestContext) => {
  const { platform, browser, tab } = setup()
  await serve(t, () => {}) // a channel does not keep the process running
  const [a, b] = [tab({ channel: undefined }), tab({ channel: undefined })]
  const memory = tab({ channel: undefined, storage: undefined })
  t.after(() => { a.close(); b.close(); memory.close() })
  const signedIn = deferred<User | null>()
  b.onChange(signedIn.resolve)
  await memory.signIn({ ...ann, email: 'bob@example.com' })
  assert.equal(browser.items.size, 0)
  await a.signIn(ann)
  assert.deepEqual(await signedIn.promise, user)
  assert.equal((await memory.currentUser())!.email, 'bob@example.com')
  assert.equal(platform.count('/api/users/refresh'), 0)
})

test('the types are those of the OpenAPI document', () => {
  const root = new URL('..', import.meta.url)
  const generated = execFileSync(process.execPath, ['node_modules/openapi-typescript/bin/cli.js', '../../../infra/openapi/openapi.yaml'], { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  assert.equal(readFileSync(new URL('src/openapi.ts', root), 'utf8'), generated, 'run "npm run generate"')
})
