import { createHash } from 'node:crypto'
import { Generations } from './cache.js'
import { UnavailableError } from './errors.js'
import { get, HTTPError, type Fetch } from './http.js'
import { elapsed } from './keys.js'
import type { Outages } from './outages.js'
import { decodeBase64url, isObject, parseObject } from './strict.js'

const refreshAge = 5_000 // a request refreshes an older copy
const waitAge = 7_000 // a request does not use an older copy while a refresh runs
const strictAge = 30_000 // strict mode rejects requests with an older copy
const retryPause = 5_000 // after a failed refresh or introspection
const positiveAge = 5_000 // of a positive answer of the introspection
const maxBytes = 16 << 20
const maxEntries = 1_000_000 // above it, the next request asks for the full answer
const maxFilters = 8
const maxWindow = 48 * 3600
const lastDate = 253402300799 // the end of the year 9999, as a NumericDate

/** The part of a token that a revocation concerns. */
export interface Session {
  sessionId: string
  userId: string
  /** A NumericDate. */
  issuedAt: number
}

interface Answer {
  cursor: string
  window: number
  sessions?: string[]
  filter?: Filter
  users: { id: string, before: number }[]
}

export interface RevocationOptions {
  url: string
  strict: boolean
  introspectionUrl?: string
  authorization?: string
  now: () => number
  fetch: Fetch
  outages: Outages
}

/**
 * Revocations is a copy of the revocation feed. Requests refresh it, so there is no timer. A
 * sign-out is seen at most seven seconds later.
 */
export class Revocations {
  #cursor: string | undefined
  #window = 0
  #sessions = new Map<string, number>() // the time of arrival
  #users = new Map<string, { before: number, at: number }>()
  #filters: { filter: Filter, at: number }[] = []
  #copied = -Infinity // the time from which the copy dates
  #failed = -Infinity // the time of a failed refresh, after which none has succeeded
  #running: Promise<void> | null = null

  #introspections = new Map<string, Promise<boolean>>()
  #failure: { at: number, cause: unknown } | null = null // of an introspection, after which none has succeeded
  readonly #negative = new Generations<string, true>(4096)
  readonly #positive = new Generations<string, number>(4096) // the time of the answer

  constructor(private readonly options: RevocationOptions) {}

  /** Reports whether a token is revoked. Digest is the key of the token in the caches. */
  async revoked(session: Session, token: string, digest: string): Promise<boolean> {
    await this.#refresh()
    const { strict, now } = this.options
    if (strict && elapsed(now(), this.#copied, strictAge)) {
      throw new UnavailableError({ retryAfter: (this.#failed + retryPause - now()) / 1000 })
    }
    if (this.#sessions.has(session.sessionId)) return true
    const user = this.#users.get(session.userId)
    if (user && session.issuedAt < user.before) return true
    if (!this.#filters.some(({ filter }) => filter.has(session.sessionId))) return false
    return !await this.#active(token, digest)
  }

  /** Refreshes a copy that is older than five seconds. At most one refresh runs. */
  async #refresh(): Promise<void> {
    const now = this.options.now()
    if (!elapsed(now, this.#copied, refreshAge)) return
    if (this.#running) {
      // During an outage, only the request that tries the feed waits, unless strict mode needs the result.
      const outage = !elapsed(now, this.#failed, strictAge) // an earlier failure says nothing about now
      if (outage ? this.options.strict && elapsed(now, this.#copied, strictAge) : elapsed(now, this.#copied, waitAge)) await this.#running
      return
    }
    if (!elapsed(now, this.#failed, retryPause)) return
    this.#running = this.#fetch().finally(() => { this.#running = null })
    await this.#running
  }

  async #fetch(): Promise<void> {
    const { now, outages } = this.options
    const began = now()
    try {
      if (this.#sessions.size + this.#users.size > maxEntries || this.#filters.length > maxFilters) this.#cursor = undefined
      const full = this.#cursor === undefined
      const { answer, age } = await this.#download().catch((err) => {
        // The feed does not know the cursor any more.
        if (full || !(err instanceof HTTPError) || ![400, 404, 410, 422].includes(err.status)) throw err
        this.#cursor = undefined
        return this.#download()
      })
      const replaces = this.#cursor === undefined
      if (replaces) {
        this.#sessions.clear()
        this.#users.clear()
        this.#filters = []
      }
      this.#add(answer, began)
      // One filter of a full answer contains fewer other sessions than many filters.
      if (answer.filter && !replaces) this.#cursor = undefined
      this.#copied = began - age * 1000
      this.#failed = -Infinity
      outages.end('revocations')
    } catch (err) {
      this.#failed = now()
      outages.report('revocations', this.options.strict
        ? 'the revocation feed is unavailable: requests are rejected when the copy is 30 s old'
        : 'the revocation feed is unavailable: revoked tokens are accepted until they expire', err)
    }
  }

  async #download(): Promise<{ answer: Answer, age: number }> {
    const { url, fetch } = this.options
    const target = this.#cursor === undefined ? url : `${url}?since=${encodeURIComponent(this.#cursor)}`
    const { body, headers } = await get(fetch, target, { maxBytes, headers: { Accept: 'application/json' } })
    const age = Number(headers.get('age') ?? 0) // the answer may come from a cache
    return { answer: parseAnswer(body), age: age >= 0 && age <= maxWindow ? age : 0 }
  }

  #add(answer: Answer, at: number): void {
    this.#cursor = answer.cursor
    this.#window = answer.window
    for (const session of answer.sessions ?? []) {
      this.#sessions.delete(session) // so that the entries are in the order of their arrival
      this.#sessions.set(session, at)
    }
    for (const { id, before } of answer.users) {
      const known = this.#users.get(id)?.before ?? 0
      this.#users.delete(id)
      this.#users.set(id, { before: Math.max(before, known), at })
    }
    if (answer.filter) this.#filters.push({ filter: answer.filter, at })
    const oldest = at - this.#window * 1000
    for (const [id, seen] of this.#sessions) {
      if (seen >= oldest) break
      this.#sessions.delete(id)
    }
    for (const [id, entry] of this.#users) {
      if (entry.at >= oldest) break
      this.#users.delete(id)
    }
    this.#filters = this.#filters.filter((f) => f.at >= oldest)
  }

  /**
   * Asks the introspection endpoint (RFC 7662). A filter contains few sessions that have not ended.
   * While the endpoint is unavailable, one request in five seconds tries it.
   */
  async #active(token: string, digest: string): Promise<boolean> {
    const { introspectionUrl, strict, now, outages } = this.options
    if (this.#negative.get(digest)) return false
    const answered = this.#positive.get(digest)
    if (answered !== undefined && !elapsed(now(), answered, positiveAge)) return true
    try {
      if (!introspectionUrl) throw new Error('INTROSPECTION_URL is not set')
      const failure = this.#failure
      if (failure && !elapsed(now(), failure.at, strictAge) && (!elapsed(now(), failure.at, retryPause) || this.#introspections.size > 0)) throw failure.cause
      let running = this.#introspections.get(digest)
      if (!running) {
        running = this.#introspect(introspectionUrl, token, digest).catch((cause) => {
          this.#failure = { at: now(), cause }
          throw cause
        }).finally(() => this.#introspections.delete(digest))
        this.#introspections.set(digest, running)
      }
      return await running
    } catch (err) {
      outages.report('introspection', strict
        ? 'a session of the revocation filter cannot be checked: its requests are rejected'
        : 'a session of the revocation filter cannot be checked: its token is accepted', err)
      if (strict) throw new UnavailableError({ retryAfter: retryPause / 1000, cause: err })
      return true
    }
  }

  async #introspect(url: string, token: string, digest: string): Promise<boolean> {
    const { authorization, now, fetch, outages } = this.options
    const asked = now()
    const { body } = await get(fetch, url, {
      maxBytes: 64 << 10,
      headers: { Accept: 'application/json', ...(authorization && { Authorization: authorization }) },
      form: new URLSearchParams({ token }),
    })
    const { active } = parseObject(body)
    if (typeof active !== 'boolean') throw new Error('the answer of the introspection has no member active')
    this.#failure = null
    outages.end('introspection')
    if (active) this.#positive.set(digest, asked)
    else this.#negative.set(digest, true)
    return active
  }
}

/** Parses an answer of the feed. Unknown members are ignored. */
function parseAnswer(body: Uint8Array): Answer {
  const { cursor, window, sessions, filter, users } = parseObject(body)
  const isID = (id: unknown): id is string => typeof id === 'string' && id !== '' && id.length <= 128
  const isWhole = (n: unknown, max: number): n is number => Number.isInteger(n) && (n as number) >= 1 && (n as number) <= max
  if (typeof cursor !== 'string' || cursor === '' || cursor.length > 1024) throw new Error('the feed has no valid cursor')
  if (!isWhole(window, maxWindow)) throw new Error('the feed has no valid window')
  if ((sessions == null) === (filter == null)) throw new Error('the feed does not have exactly one of sessions and filter')
  if (sessions != null && !(Array.isArray(sessions) && sessions.every(isID))) throw new Error('the sessions of the feed are not valid')
  const valid = Array.isArray(users) && users.every((u) => isObject(u) && isID(u.id) && isWhole(u.before, lastDate))
  if (!valid) throw new Error('the users of the feed are not valid')
  return {
    cursor, window, users: users as Answer['users'],
    sessions: (sessions as string[] | null | undefined) ?? undefined,
    filter: filter == null ? undefined : new Filter(filter),
  }
}

/**
 * A Filter is a Bloom filter of session ids. It contains every ended session, and few others.
 *
 * The positions of an id come from its SHA-256 digest d: h1 is the first 8 bytes of d and h2 the
 * next 8 bytes, both big-endian, with the lowest bit of h2 set. Position i is
 * ((h1 + i*h2) mod 2^64) mod m for 0 ≤ i < hashes, where m is the number of bits. Bit p is the
 * mask 1<<(p&7) of byte p>>3.
 */
export class Filter {
  readonly #hashes: number
  readonly #bits: Buffer

  constructor(json: unknown) {
    const { hashes, bits } = isObject(json) ? json : {}
    if (!Number.isInteger(hashes) || (hashes as number) < 1 || (hashes as number) > 32) throw new Error('hashes of the filter is not valid')
    if (typeof bits !== 'string') throw new Error('bits of the filter is not valid')
    this.#hashes = hashes as number
    this.#bits = decodeBase64url(bits)
    if (this.#bits.length === 0 || this.#bits.length > 8 << 20) throw new Error('bits of the filter is not valid')
  }

  has(session: string): boolean {
    const digest = createHash('sha256').update(session).digest()
    let position = digest.readBigUInt64BE(0)
    const step = digest.readBigUInt64BE(8) | 1n
    const m = BigInt(8 * this.#bits.length)
    for (let i = 0; i < this.#hashes; i++) {
      const p = Number(position % m)
      if ((this.#bits[p >> 3]! & (1 << (p & 7))) === 0) return false
      position = BigInt.asUintN(64, position + step)
    }
    return true
  }
}
