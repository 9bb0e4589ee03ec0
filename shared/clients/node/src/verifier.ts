import { createHash } from 'node:crypto'
import { compactVerify, errors as jose } from 'jose'
import { Generations } from './cache.js'
import { InvalidTokenError } from './errors.js'
import { Keys, type Key } from './keys.js'
import { Outages } from './outages.js'
import { Revocations } from './revocations.js'
import { readSettings, type VerifierOptions } from './settings.js'
import { decodeBase64url, parseObject } from './strict.js'

/** The user and the session of a valid token. */
export interface Identity {
  id: string
  email: string
  emailVerified: boolean
  sessionId: string
  tokenId: string
  clientId: string | undefined
  roles: readonly string[]
  /** The methods of the sign-in (RFC 8176). */
  amr: readonly string[]
  /** The level of the sign-in: aal1, aal2 or phr. */
  acr: string | undefined
  /** The time of the sign-in. Undefined counts as not fresh. */
  authTime: Date | undefined
  issuedAt: Date
  expiresAt: Date
}

/** A request of Fetch or of Node.js. */
export interface RequestLike {
  headers: Headers | Readonly<Record<string, string | string[] | undefined>>
  rawHeaders?: readonly string[]
}

export interface Verifier {
  /** Returns the identity of a request, or null if it has no bearer token. It throws an InvalidTokenError or an UnavailableError. */
  verify(request: RequestLike): Promise<Identity | null>
  /** Returns the identity of a token, with the same errors. */
  verifyToken(token: string): Promise<Identity>
  /** Returns the time in milliseconds. */
  now(): number
}

const maxToken = 8 << 10
export const leeway = 30 // seconds by which the clock of the issuer may be ahead
const lastDate = 253402300799 // the end of the year 9999, as a NumericDate

/** Returns a verifier. It throws a SettingsError that lists every problem of the settings. */
export function createVerifier(options: VerifierOptions = {}): Verifier {
  const outages = new Outages(options.onProblem)
  const settings = readSettings(options, outages)
  const now = options.now ?? Date.now
  const fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init))
  const keys = new Keys({ mounted: settings.mounted, file: settings.keysFile, url: settings.keysUrl, now, fetch, outages })
  const revocations = settings.revocationsUrl === undefined ? null : new Revocations({
    url: settings.revocationsUrl, strict: settings.strict, introspectionUrl: settings.introspectionUrl,
    authorization: settings.authorization, now, fetch, outages,
  })
  const cache = new Generations<string, { claims: Claims, version: number }>(settings.cacheSize)

  // authentic returns the claims of a token with a valid signature.
  async function authentic(token: string, digest: string): Promise<Claims> {
    await keys.refresh()
    const cached = cache.get(digest)
    if (cached && cached.version === keys.version) return cached.claims
    const { kid, alg, payload } = parseToken(token)
    const key = await keys.find(kid)
    if (!key) throw new InvalidTokenError('its key is unknown')
    const version = keys.version
    await checkSignature(token, alg, key)
    const claims = parseClaims(payload)
    cache.set(digest, { claims, version })
    return claims
  }

  async function verifyToken(token: string): Promise<Identity> {
    if (token.length > maxToken) throw new InvalidTokenError('it is longer than 8 KiB')
    const digest = createHash('sha256').update(token).digest('base64')
    const claims = await authentic(token, digest)
    const seconds = now() / 1000
    if (claims.iss !== settings.issuer) throw new InvalidTokenError('it has another issuer')
    if (!claims.aud.includes(settings.audience)) throw new InvalidTokenError('it has another audience')
    if (seconds >= claims.exp) throw new InvalidTokenError('it has expired')
    for (const start of [claims.iat, claims.nbf]) {
      if (start !== undefined && start > seconds + leeway) throw new InvalidTokenError('it is not valid yet')
    }
    const { identity } = claims
    const session = { sessionId: identity.sessionId, userId: identity.id, issuedAt: claims.iat }
    if (await revocations?.revoked(session, token, digest)) throw new InvalidTokenError('it is revoked')
    // A Date can be changed, so each request has its own.
    const { authTime, issuedAt, expiresAt } = identity
    return { ...identity, authTime: authTime && new Date(authTime), issuedAt: new Date(issuedAt), expiresAt: new Date(expiresAt) }
  }

  return {
    now,
    verifyToken,
    async verify(request) {
      const token = bearer(request)
      return token === null ? null : await verifyToken(token)
    },
  }
}

/**
 * Returns the token in the Authorization header (RFC 6750 section 2.1), or null if there is no
 * header or another scheme. A second header makes the request invalid, also if a gateway or Fetch
 * has joined both with a comma.
 */
function bearer({ headers, rawHeaders }: RequestLike): string | null {
  let values: (string | null | undefined)[]
  if (rawHeaders && rawHeaders.length > 0) values = rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]!.toLowerCase() === 'authorization')
  else if (isHeaders(headers)) values = [headers.get('authorization')]
  else values = [headers.authorization].flat()
  if (values.length > 1) throw new InvalidTokenError('the request has two Authorization headers')
  const value = trim(values[0] ?? '')
  if (!value) return null
  const [, scheme, token] = /^([^ \t]*)[ \t]*(.*)$/s.exec(value) as unknown as [string, string, string]
  if (scheme.toLowerCase() === 'bearer') {
    if (token === '') throw new InvalidTokenError('the token is empty')
    return token
  }
  if (/,[ \t]*bearer( |$)/i.test(value)) throw new InvalidTokenError('the request has two Authorization headers')
  return null
}

/** Removes spaces and tabs at both ends. A regular expression takes quadratic time for a run of spaces inside the value. */
function trim(value: string): string {
  const isSpace = (i: number): boolean => value[i] === ' ' || value[i] === '\t'
  let [start, end] = [0, value.length]
  while (start < end && isSpace(start)) start++
  while (start < end && isSpace(end - 1)) end--
  return value.slice(start, end)
}

function isHeaders(headers: RequestLike['headers']): headers is Headers {
  return typeof headers.get === 'function'
}

/** Returns the parts of a token. The header may have only the members that an issuer writes, so crit, jku, jwk, x5c and x5u are rejected (RFC 8725 section 3.10). */
function parseToken(token: string): { kid: string, alg: string, payload: Buffer } {
  try {
    const parts = token.split('.', 4)
    if (parts.length !== 3) throw new SyntaxError('it has not three parts')
    const [header, payload] = parts.map(decodeBase64url) as [Buffer, Buffer, Buffer]
    const { alg, typ, kid, ...others } = parseObject(header)
    if (Object.keys(others).length > 0) throw new SyntaxError('its header has other members than an issued token')
    if (typ !== 'at+jwt') throw new SyntaxError('its type is not at+jwt')
    if (typeof alg !== 'string' || typeof kid !== 'string') throw new SyntaxError('its header is incomplete')
    return { kid, alg, payload }
  } catch (err) {
    throw new InvalidTokenError(err instanceof SyntaxError ? 'it is not a token of the platform' : 'it is not UTF-8')
  }
}

async function checkSignature(token: string, alg: string, key: Key): Promise<void> {
  if (alg !== key.alg) throw new InvalidTokenError('its algorithm is not the one of its key')
  try {
    await compactVerify(token, key.key, { algorithms: [key.alg] })
  } catch (err) {
    if (err instanceof jose.JOSEError) throw new InvalidTokenError('its signature is not valid')
    throw err
  }
}

interface Claims {
  iss: string
  aud: string[]
  iat: number
  exp: number
  nbf: number | undefined
  identity: Identity
}

/** Parses the payload of an authentic token. A claim that older issuers do not write is optional, and null counts as absent, as in the Go package. */
function parseClaims(payload: Buffer): Claims {
  try {
    const c = parseObject(payload)
    const iat = date(c.iat)
    const exp = date(c.exp)
    const authTime = optional(c.auth_time === 0 ? undefined : c.auth_time, date)
    const sessionId = string(c.sid)
    if (!/^[0-9a-f]+$/.test(sessionId)) throw new TypeError()
    const roles = Object.freeze(optional(c.roles, strings) ?? [])
    const amr = Object.freeze(optional(c.amr, strings) ?? [])
    const emailVerified = optional(c.email_verified, boolean) ?? false
    return {
      iss: string(c.iss), aud: typeof c.aud === 'string' ? [c.aud] : strings(c.aud), iat, exp, nbf: optional(c.nbf, number),
      identity: {
        id: string(c.sub), email: string(c.email), emailVerified, sessionId, tokenId: string(c.jti),
        clientId: optional(c.client_id || undefined, string), roles, amr, acr: optional(c.acr || undefined, string),
        authTime: authTime === undefined ? undefined : new Date(authTime * 1000), issuedAt: new Date(iat * 1000), expiresAt: new Date(exp * 1000),
      },
    }
  } catch {
    throw new InvalidTokenError('its claims are incomplete or not well formed')
  }
}

function optional<T>(value: unknown, parse: (value: unknown) => T): T | undefined {
  return value == null ? undefined : parse(value)
}

function string(value: unknown): string {
  if (typeof value !== 'string' || value === '') throw new TypeError()
  return value
}

function strings(value: unknown): string[] {
  if (!Array.isArray(value) || !value.every((s) => typeof s === 'string')) throw new TypeError()
  return value
}

function boolean(value: unknown): boolean {
  if (typeof value !== 'boolean') throw new TypeError()
  return value
}

function number(value: unknown): number {
  if (typeof value !== 'number') throw new TypeError()
  return value
}

/** Returns a NumericDate (RFC 7519 section 2). */
function date(value: unknown): number {
  const seconds = number(value)
  if (!(seconds > 0 && seconds <= lastDate)) throw new TypeError()
  return seconds
}
