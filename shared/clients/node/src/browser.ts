/**
 * Signs users in from a browser, and sends their access token. It has no dependency.
 *
 * The access token stays in memory. The refresh token is in a storage that the application chooses:
 *
 * - none (the default): memory. A reload signs the user out. A script that an attacker injects can
 *   use the session only while the page is open.
 * - sessionStorage: a reload keeps the session, and a new tab has none.
 * - localStorage: all tabs share the session, and it survives a restart of the browser. An injected
 *   script can copy the refresh token and use it elsewhere, until the user signs out.
 *
 * @module
 */
import type { components } from './openapi.js'

export type User = components['schemas']['User']
export type Grant = components['schemas']['Grant']
export type ErrorItem = components['schemas']['Item']

/** The part of localStorage and sessionStorage that a client uses. The functions may be asynchronous. */
export interface ClientStorage {
  getItem(key: string): string | null | Promise<string | null>
  setItem(key: string, value: string): void | Promise<void>
  removeItem(key: string): void | Promise<void>
}

/** The part of BroadcastChannel that a client uses. */
export interface Channel {
  postMessage(message: unknown): void
  onmessage: ((event: MessageEvent) => unknown) | null
  close(): void
}

export interface ClientOptions {
  /** The origin of the platform, such as https://example.com. */
  baseUrl: string
  /** The storage of the refresh token. Default: memory. */
  storage?: ClientStorage
  /** Other origins that may receive the access token. */
  allowedOrigins?: readonly string[]
  /** Default: the global fetch. */
  fetch?: (request: Request) => Promise<Response>
  /** Returns the time in milliseconds. Default: Date.now. */
  now?: () => number
  /** Default: navigator.locks. With null, tabs do not wait for each other, and the server's tolerance for a repeated refresh applies. */
  locks?: Pick<LockManager, 'request'> | null
  /** Default: a BroadcastChannel. */
  channel?: Channel | null
}

export interface Client {
  /** Creates an account and signs in. It sends an Idempotency-Key, so a lost response creates no second account. */
  signUp(input: components['schemas']['SignupInput']): Promise<User>
  signIn(input: components['schemas']['SigninInput']): Promise<User>
  /** Ends the session in this browser, also if the request fails. Then it throws the error of the request. */
  signOut(): Promise<void>
  /** Asks the platform for the user of the session. It returns null without a session. */
  currentUser(): Promise<User | null>
  /**
   * Sends a request as fetch does. Requests to baseUrl and allowedOrigins have the access token. It
   * throws a RateLimitError, an UnavailableError or a StepUpRequiredError for these responses.
   */
  fetch(input: string | URL | Request, init?: RequestInit): Promise<Response>
  /** Calls a function after each change of the user, also in another tab. It returns a function that ends this. */
  onChange(listener: (user: User | null) => void): () => void
  /** Stops listening to other tabs. */
  close(): void
}

/** An ApiError is an error response. */
export class ApiError extends Error {
  override name = 'ApiError'
  readonly status: number

  constructor(readonly response: Response, readonly errors: readonly ErrorItem[] = []) {
    super(errors[0]?.message ?? `The server answered ${response.status}.`)
    this.status = response.status
  }
}

class RetryError extends ApiError {
  /** The seconds to wait before the next try, if the response states them. */
  readonly retryAfter: number | undefined

  constructor(response: Response, errors?: readonly ErrorItem[]) {
    super(response, errors)
    const value = response.headers.get('retry-after') ?? ''
    const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000
    this.retryAfter = Number.isNaN(seconds) ? undefined : Math.max(0, Math.ceil(seconds))
  }
}

/** A RateLimitError is a response with the status 429. */
export class RateLimitError extends RetryError { override name = 'RateLimitError' }

/** An UnavailableError is a response with the status 503. */
export class UnavailableError extends RetryError { override name = 'UnavailableError' }

/** A StepUpRequiredError is a response that asks for a new or a stronger sign-in (RFC 9470). */
export class StepUpRequiredError extends ApiError {
  override name = 'StepUpRequiredError'
  /** The required levels, such as aal2. */
  readonly acrValues: readonly string[]
  /** The maximum age of the sign-in, in seconds. */
  readonly maxAge: number | undefined

  constructor(response: Response, errors?: readonly ErrorItem[]) {
    super(response, errors)
    this.acrValues = challenge(response, 'acr_values')?.split(' ') ?? []
    const maxAge = challenge(response, 'max_age')
    this.maxAge = maxAge === undefined ? undefined : Number(maxAge)
  }
}

/** A Stored is the value in the storage. */
interface Stored { refreshToken: string, user: User }

interface Access { token: string, expiresAt: number, refreshAt: number }

type Message =
  | { type: 'grant', previous: string | undefined, stored: Stored, access: Access }
  | { type: 'want', refreshToken: string }
  | { type: 'signout', refreshToken: string | undefined }

const requestTimeout = 10_000
const lockTimeout = 15_000 // of a tab that the browser has suspended while it held the lock
const askTimeout = 50 // for the access token of another tab
const refreshPause = 5_000 // after a failed refresh, while the access token is valid
const maxUsed = 100 // refresh tokens: a day, for a tab in use

/** Returns a client. An application has one. */
export function createClient(options: ClientOptions): Client {
  return new TokenClient(options)
}

class TokenClient implements Client {
  readonly #base: URL
  readonly #name: string
  readonly #origins: Set<string>
  readonly #storage: ClientStorage
  readonly #send: (request: Request) => Promise<Response>
  readonly #now: () => number
  readonly #locks: Pick<LockManager, 'request'> | null
  readonly #channel: Channel | null
  readonly #listeners = new Set<(user: User | null) => void>()
  readonly #onStorage = (event: Event): void => { if ((event as StorageEvent).key === this.#name) void this.#reread() }

  #access: Access | null = null
  #held: string | undefined // the refresh token that belongs to #access
  readonly #used = new Set<string>() // the last refresh tokens of the session before #held
  #user: User | null = null
  #refreshing: Promise<Access | null> | null = null
  #queue: Promise<unknown> = Promise.resolve() // the lock without Web Locks
  #adopted: (() => void) | null = null // a tab has sent its access token
  #signup: { body: string, key: string } | null = null // a sign-up without a response

  constructor({ baseUrl, storage, allowedOrigins = [], fetch, now = Date.now, locks, channel }: ClientOptions) {
    this.#base = new URL(baseUrl, globalThis.location?.href)
    this.#origins = new Set([this.#base.origin, ...allowedOrigins.map((origin) => new URL(origin).origin)])
    this.#name = `ticketing.auth ${this.#base.origin}`
    this.#storage = storage ?? memory()
    this.#send = fetch ?? ((request) => globalThis.fetch(request))
    this.#now = now
    this.#locks = locks === undefined ? globalThis.navigator?.locks ?? null : locks
    this.#channel = channel === undefined ? openChannel(this.#name) : channel
    if (this.#channel) this.#channel.onmessage = (event) => { void this.#receive(event.data as Message) }
    globalThis.addEventListener?.('storage', this.#onStorage)
  }

  async signUp(input: components['schemas']['SignupInput']): Promise<User> {
    const body = JSON.stringify({ email: input.email, password: input.password })
    if (this.#signup?.body !== body) this.#signup = { body, key: randomKey() }
    const response = await this.#repeat('/api/users/signup', { body, headers: { 'Idempotency-Key': this.#signup.key } })
    if (response.status < 500 && response.status !== 429) this.#signup = null
    return await this.#signedIn(response)
  }

  async signIn(input: components['schemas']['SigninInput']): Promise<User> {
    return await this.#signedIn(await this.#post('/api/users/signin', { body: JSON.stringify({ email: input.email, password: input.password }) }))
  }

  async signOut(): Promise<void> {
    await this.#lock(async () => {
      try {
        const stored = await this.#newest()
        const end = (token: string) => this.#post('/api/users/signout', { headers: { Authorization: `Bearer ${token}` }, keepalive: true })
        const refreshed = async () => stored && (await this.#refresh(stored))?.token
        // The platform accepts an expired access token here, unless its key was withdrawn. The token
        // of a page that missed a sign-in belongs to another session.
        const held = !stored || stored.refreshToken === this.#held ? this.#access?.token : undefined
        let token = held ?? await refreshed()
        if (!token) return
        let response = await end(token)
        if (response.status === 401 && held) {
          token = await refreshed()
          if (!token) return
          response = await end(token)
        }
        if (!response.ok && response.status !== 401) throw await failure(response)
      } finally {
        await this.#clear()
      }
    })
  }

  async currentUser(): Promise<User | null> {
    if (!await this.#token()) return null
    const response = await this.fetch('/api/users/currentuser')
    if (response.status === 401) return null
    if (!response.ok) throw await failure(response)
    return (await response.json() as components['schemas']['CurrentuserOutput']).currentUser
  }

  async fetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
    const request = new Request(input instanceof Request ? input : new URL(input, this.#base), init)
    if (!this.#origins.has(new URL(request.url).origin) || request.headers.has('authorization')) return await this.#send(request)
    const token = await this.#token()
    let response = await this.#send(token ? withToken(request.clone(), token) : request.clone())
    if (response.status === 401 && token && !isStepUp(response)) {
      const access = await this.#renew(token)
      if (access && access.token !== token) response = await this.#send(withToken(request, access.token))
    }
    if (response.status === 429 || response.status === 503 || isStepUp(response)) throw await failure(response)
    return response
  }

  onChange(listener: (user: User | null) => void): () => void {
    this.#listeners.add(listener)
    return () => { this.#listeners.delete(listener) }
  }

  close(): void {
    this.#channel?.close()
    globalThis.removeEventListener?.('storage', this.#onStorage)
  }

  /** Returns an access token that is valid, or null without a session. */
  async #token(): Promise<string | null> {
    if (this.#access && this.#now() < this.#access.refreshAt) return this.#access.token
    try {
      return (await this.#renew())?.token ?? null
    } catch (err) {
      if (!this.#access || this.#now() >= this.#access.expiresAt) throw err
      this.#access.refreshAt = this.#now() + refreshPause
      return this.#access.token
    }
  }

  /** Returns a new access token. All callers of this tab share one refresh, and tabs do too. */
  #renew(rejected?: string): Promise<Access | null> {
    const usable = (): boolean => this.#access !== null && this.#access.token !== rejected && this.#now() < this.#access.refreshAt
    if (usable()) return Promise.resolve(this.#access)
    this.#refreshing ??= this.#lock(async () => {
      const stored = await this.#newest()
      if (!stored) {
        this.#become(null, null, undefined)
        return null
      }
      return usable() ? this.#access : await this.#refresh(stored)
    }).finally(() => { this.#refreshing = null })
    return this.#refreshing
  }

  /**
   * Exchanges the refresh token. The caller has the lock. If the platform rejects the token, another
   * tab may have used it: then refresh continues with the token of that tab. So only the rejection
   * of the newest token signs the user out.
   */
  async #refresh(stored: Stored): Promise<Access | null> {
    for (;;) {
      const response = await this.#repeat('/api/users/refresh', { body: JSON.stringify({ refreshToken: stored.refreshToken }) })
      const grant = response.ok ? await response.json() as Grant : null
      if (!grant && response.status !== 400 && response.status !== 401) throw await failure(response)
      const newest = await this.#read()
      if (!newest) { // signed out in another tab
        this.#become(null, null, undefined)
        return null
      }
      if (grant && (newest.refreshToken === stored.refreshToken || newest.refreshToken === grant.refreshToken)) {
        return await this.#store(grant, stored.refreshToken)
      }
      if (newest.refreshToken === stored.refreshToken) {
        await this.#clear()
        return null
      }
      stored = newest
    }
  }

  async #signedIn(response: Response): Promise<User> {
    if (!response.ok) throw await failure(response)
    const grant = await response.json() as Grant
    await this.#lock(() => this.#store(grant, undefined))
    return grant.user
  }

  /** Stores a grant, and sends it to the other tabs. */
  async #store(grant: Grant, previous: string | undefined): Promise<Access> {
    const life = grant.expiresIn * 1000
    const expiresAt = this.#now() + life
    const access = { token: grant.token, expiresAt, refreshAt: expiresAt - Math.min(60_000, life / 4) }
    const stored = { refreshToken: grant.refreshToken, user: grant.user }
    await this.#storage.setItem(this.#name, JSON.stringify(stored))
    this.#become(grant.user, access, grant.refreshToken, previous)
    this.#tell({ type: 'grant', previous, stored, access })
    return access
  }

  /** Returns the session of the storage. If it is not the one of #access, the other tabs may have a newer grant. */
  async #newest(): Promise<Stored | null> {
    const stored = await this.#read()
    if (!stored || stored.refreshToken === this.#held) return stored
    await this.#ask(stored.refreshToken)
    return await this.#read()
  }

  async #clear(): Promise<void> {
    const stored = await this.#read()
    await this.#storage.removeItem(this.#name)
    this.#become(null, null, undefined)
    this.#tell({ type: 'signout', refreshToken: stored?.refreshToken })
  }

  async #read(): Promise<Stored | null> {
    try {
      const stored = JSON.parse(await this.#storage.getItem(this.#name) ?? 'null') as Partial<Stored> | null
      return typeof stored?.refreshToken === 'string' && typeof stored.user?.id === 'string' ? stored as Stored : null
    } catch {
      return null
    }
  }

  /** Takes the session of the storage after a change in another tab. */
  async #reread(): Promise<void> {
    const stored = await this.#read()
    if (!stored) this.#become(null, null, undefined)
    else if (stored.refreshToken !== this.#held && stored.user.id !== this.#user?.id) this.#become(stored.user, null, undefined)
  }

  /** Previous is a used refresh token of the same session. Without it, the session is another one. */
  #become(user: User | null, access: Access | null, held: string | undefined, previous?: string): void {
    const changed = this.#user?.id !== user?.id
    if (changed || previous === undefined) this.#used.clear()
    if (previous !== undefined && previous !== held) this.#used.add(previous)
    if (this.#used.size > maxUsed) this.#used.delete(this.#used.values().next().value!)
    this.#user = user
    this.#access = access
    this.#held = held
    if (!changed) return
    for (const listener of [...this.#listeners]) {
      try {
        listener(user)
      } catch (err) {
        (globalThis.reportError ?? console.error)(err) // as an EventTarget does
      }
    }
  }

  #tell(message: Message): void { this.#channel?.postMessage(message) }

  async #receive(message: Message): Promise<void> {
    const stored = await this.#read()
    switch (message.type) {
      case 'want':
        // A tab with a used refresh token needs the newest one, also if the access token has expired.
        if (this.#access && this.#user && this.#held && (this.#held === message.refreshToken || this.#used.has(message.refreshToken))) {
          this.#tell({ type: 'grant', previous: message.refreshToken, stored: { refreshToken: this.#held, user: this.#user }, access: this.#access })
        }
        break
      case 'grant': {
        // A tab that was duplicated has a copy of sessionStorage with a previous refresh token.
        const { previous, access } = message
        const newest = message.stored.refreshToken
        if (!stored || (stored.refreshToken !== newest && stored.refreshToken !== previous)) break
        if (stored.refreshToken !== newest) await this.#storage.setItem(this.#name, JSON.stringify(message.stored))
        this.#become(message.stored.user, access, newest, previous)
        this.#adopted?.()
        break
      }
      case 'signout':
        if (stored && stored.refreshToken !== message.refreshToken) break
        await this.#storage.removeItem(this.#name)
        this.#become(null, null, undefined)
    }
  }

  /** Asks the other tabs for an access token, and waits a moment for it. */
  async #ask(refreshToken: string): Promise<void> {
    if (!this.#channel) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, askTimeout)
      this.#adopted = () => { clearTimeout(timer); resolve() }
      this.#tell({ type: 'want', refreshToken })
    })
    this.#adopted = null
  }

  /** Runs a function while no other tab runs one. */
  async #lock<T>(run: () => Promise<T>): Promise<T> {
    if (!this.#locks) {
      const result = this.#queue.then(run)
      this.#queue = result.catch(() => {})
      return await result
    }
    const waiting = new AbortController()
    const timer = setTimeout(() => waiting.abort(), lockTimeout)
    try {
      return await this.#locks.request(this.#name, { signal: waiting.signal }, () => {
        clearTimeout(timer)
        return run()
      }) as T
    } catch (err) {
      if (!waiting.signal.aborted) throw err
      return await run()
    } finally {
      clearTimeout(timer)
    }
  }

  #post(path: string, init: RequestInit): Promise<Response> {
    const headers = init.body ? { 'Content-Type': 'application/json', ...init.headers } : init.headers
    return this.#send(new Request(new URL(path, this.#base), { method: 'POST', signal: AbortSignal.timeout(requestTimeout), ...init, headers }))
  }

  /** Sends a request again if the response is lost. The platform repeats its response to the same request. */
  async #repeat(path: string, init: RequestInit): Promise<Response> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.#post(path, init)
      } catch (err) {
        if (tries === 3) throw err
      }
    }
  }
}

function memory(): ClientStorage {
  const items = new Map<string, string>()
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => { items.set(key, value) },
    removeItem: (key) => { items.delete(key) },
  }
}

function openChannel(name: string): Channel | null {
  if (typeof BroadcastChannel === 'undefined') return null
  const channel = new BroadcastChannel(name) as BroadcastChannel & { unref?: () => void }
  channel.unref?.() // in Node.js, a channel keeps the process running
  return channel
}

function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function withToken(request: Request, token: string): Request {
  request.headers.set('Authorization', `Bearer ${token}`)
  return request
}

/** Returns a parameter of the WWW-Authenticate header. */
function challenge(response: Response, name: string): string | undefined {
  return new RegExp(`[ ,]${name}="([^"]*)"`).exec(response.headers.get('www-authenticate') ?? '')?.[1]
}

function isStepUp(response: Response): boolean {
  return response.status === 401 && challenge(response, 'error') === 'insufficient_user_authentication'
}

async function failure(response: Response): Promise<ApiError> {
  const body = await response.clone().json().catch(() => null) as { errors?: unknown } | null
  const errors = Array.isArray(body?.errors) ? body.errors as ErrorItem[] : []
  if (response.status === 429) return new RateLimitError(response, errors)
  if (response.status === 503) return new UnavailableError(response, errors)
  return isStepUp(response) ? new StepUpRequiredError(response, errors) : new ApiError(response, errors)
}
