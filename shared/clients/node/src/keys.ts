import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { UnavailableError } from './errors.js'
import { get, type Fetch } from './http.js'
import type { Outages } from './outages.js'
import { decodeBase64url, isObject, parseObject } from './strict.js'

/** A Key verifies the tokens that name its id. Its algorithm does not come from the token (RFC 8725 section 3.1). */
export interface Key {
  readonly alg: 'EdDSA' | 'ES256'
  readonly key: KeyObject
}

export type KeySet = ReadonlyMap<string, Key>

/** A JSON Web Key Set (RFC 7517 section 5). */
export interface JSONWebKeySet { keys: readonly object[] }

/**
 * Parses a public JWK Set, and throws an error that never contains the data. A key of another
 * kind, such as RSA, is ignored. Any other unusable key is reported and ignored (RFC 7517
 * section 5), so that it does not stop the other keys.
 */
export function parseKeys(data: Uint8Array, report: (problem: string) => void): KeySet {
  let keys: unknown
  try {
    keys = parseObject(data).keys
  } catch {
    throw new Error('is not well-formed JSON of a JWK Set')
  }
  if (!Array.isArray(keys)) throw new Error('is not a JWK Set')
  const set = new Map<string, Key>()
  const problems: string[] = []
  for (const [i, jwk] of keys.entries()) {
    const parsed = parseKey(jwk, i + 1)
    if (typeof parsed === 'string') problems.push(parsed)
    if (!Array.isArray(parsed)) continue
    if (set.has(parsed[0])) throw new Error(`has the kid of key ${i + 1} twice`)
    set.set(...parsed)
  }
  if (set.size === 0) throw new Error(problems[0] ?? 'has no key for EdDSA or ES256')
  for (const problem of problems) report(problem)
  return set
}

/** Returns the kid and the key of a JWK, the problem of an unusable one, or null for a key of another kind. */
function parseKey(jwk: unknown, number: number): [string, Key] | string | null {
  if (!isObject(jwk)) return `has a key ${number} that is not a JWK`
  if ('d' in jwk || 'k' in jwk) return `has a private key ${number}: use the public set`
  const { kty, crv, x, y, kid, use = 'sig', key_ops: operations = ['verify'] } = jwk
  const alg = kty === 'OKP' && crv === 'Ed25519' ? 'EdDSA' : kty === 'EC' && crv === 'P-256' ? 'ES256' : undefined
  if (!alg || (jwk.alg ?? alg) !== alg || use !== 'sig' || !Array.isArray(operations) || !operations.includes('verify')) return null
  if (typeof kid !== 'string' || kid === '') return `has a key ${number} without a kid`
  try {
    for (const coordinate of alg === 'EdDSA' ? [x] : [x, y]) {
      if (typeof coordinate !== 'string' || decodeBase64url(coordinate).length !== 32) throw new Error()
    }
    return [kid, { alg, key: createPublicKey({ format: 'jwk', key: { kty, crv, x, y } as JsonWebKey }) }]
  } catch {
    return `has a key ${number} that is not valid`
  }
}

const interval = 30_000 // between two looks for a changed key set
const retryWithoutKeys = 1_000
const freshness = 300_000 // the max-age of the published set
const outage = 24 * 3600_000 // for which the last fetched keys verify
const maxBytes = 256 << 10

export interface KeySources {
  /** The mounted set, or null if the file does not exist yet. */
  mounted: KeySet | null
  file?: string
  url?: string
  now: () => number
  fetch: Fetch
  outages: Outages
}

/**
 * Keys returns the key of a kid: from the mounted set, else from the fetched one. It reads the
 * mounted file again after a change, and fetches the set again after five minutes or for an
 * unknown kid. Each of these happens for a request. There is no timer.
 */
export class Keys {
  /** Changes with every change of the keys. */
  version = 0

  #mounted: KeySet | null
  #fetched: KeySet | null = null
  #fetchedAt = -Infinity
  #tried = -Infinity
  #failed = -Infinity // the time of a failed fetch, after which none has succeeded
  #running: Promise<void> | null = null
  #looked = -Infinity // the last look at the file
  #lookedForKid = -Infinity
  #stamp: string | undefined
  #text = '' // of the fetched set

  constructor(private readonly sources: KeySources) {
    this.#mounted = sources.mounted
  }

  async find(kid: string): Promise<Key | undefined> {
    await this.refresh()
    let key = this.#known(kid)
    if (key) return key
    if (this.sources.file && elapsed(this.sources.now(), this.#lookedForKid, interval)) {
      this.#lookedForKid = this.sources.now()
      this.#look()
      key = this.#known(kid)
      if (key) return key
    }
    if (this.sources.url) {
      await this.#fetch()
      key = this.#known(kid)
      if (!key && this.#failed !== -Infinity) throw this.#unavailable()
    }
    if (!key && !this.#mounted && !this.#fetched) throw this.#unavailable()
    return key
  }

  /** Looks for withdrawn keys. A request with a known kid calls it too, also if the token is in the cache. */
  async refresh(): Promise<void> {
    const now = this.sources.now()
    if (this.sources.file && elapsed(now, this.#looked, interval)) this.#look()
    if (!this.#fetched || !elapsed(now, this.#fetchedAt, freshness)) return
    // A request beside a running fetch waits only after a time without requests, in which its key
    // may have been withdrawn. It does not wait if a fetch has failed in the last five minutes.
    const idle = elapsed(now, this.#fetchedAt, 2 * freshness) && elapsed(now, this.#failed, freshness)
    if (!this.#running || idle) await this.#fetch()
    if (this.#fetched && elapsed(this.sources.now(), this.#fetchedAt, outage)) {
      this.#fetched = null
      this.version++
    }
  }

  #known(kid: string): Key | undefined {
    return this.#mounted?.get(kid) ?? this.#fetched?.get(kid)
  }

  #unavailable(): UnavailableError {
    const again = this.#tried + (this.#fetched || this.#mounted ? interval : retryWithoutKeys)
    return new UnavailableError({ retryAfter: (again - this.sources.now()) / 1000 })
  }

  /**
   * Reads the file if it has changed. An invalid file leaves the old keys in use. Look is
   * synchronous, so that no concurrent request sees the old set after the look has begun.
   */
  #look(): void {
    const file = this.sources.file!
    this.#looked = this.sources.now()
    try {
      const { mtimeMs, size, ino } = statSync(file)
      const stamp = `${mtimeMs} ${size} ${ino}`
      if (stamp === this.#stamp) return
      this.#mounted = parseKeys(readFileSync(file), (problem) => this.sources.outages.unusedKey('keysFile', `the file of the keys ${problem}`))
      this.#stamp = stamp
      this.version++
      this.sources.outages.end('keysFile')
    } catch (err) {
      if (this.#mounted) this.sources.outages.report('keysFile', 'the file of the keys cannot be read: the old keys stay in use', err)
    }
  }

  /** Fetches the set. At most one request runs, and all callers wait for it. */
  #fetch(): Promise<void> {
    const pause = this.#failed !== -Infinity && !this.#fetched && !this.#mounted ? retryWithoutKeys : interval
    if (!this.#running && elapsed(this.sources.now(), this.#tried, pause)) {
      this.#tried = this.sources.now()
      this.#running = this.#download().finally(() => { this.#running = null })
    }
    return this.#running ?? Promise.resolve()
  }

  async #download(): Promise<void> {
    const { url, fetch, now, outages } = this.sources
    try {
      const { body } = await get(fetch, url!, { maxBytes, headers: { Accept: 'application/json' } })
      const text = Buffer.from(body).toString('latin1')
      if (!this.#fetched || text !== this.#text) {
        this.#fetched = parseKeys(body, (problem) => outages.unusedKey('keys', `the fetched key set ${problem}`))
        this.#text = text
        this.version++
      }
      this.#fetchedAt = now()
      this.#failed = -Infinity
      outages.end('keys')
    } catch (err) {
      this.#failed = now()
      outages.report('keys', 'the keys cannot be fetched', err)
    }
  }
}

/** Reports whether a duration has passed. A clock that was set back counts as passed. */
export function elapsed(now: number, since: number, duration: number): boolean {
  return now - since >= duration || now < since
}
