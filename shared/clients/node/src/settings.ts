import { readFileSync } from 'node:fs'
import type { Fetch } from './http.js'
import { parseKeys, type JSONWebKeySet, type KeySet } from './keys.js'
import type { Outages, Problem } from './outages.js'

/** Each option has precedence over its setting in the environment. */
export interface VerifierOptions {
  /** The public keys, as an object or as text. Setting: VERIFYING_KEYS. With one of the three options for keys, no setting for keys is read. */
  keys?: string | JSONWebKeySet
  /** A file with the public keys. A changed file is read again. Setting: VERIFYING_KEYS_FILE. */
  keysFile?: string
  /** The URL of the public keys, for a key that the other two lack. Setting: VERIFYING_KEYS_URL. */
  keysUrl?: string
  /** Setting: TOKEN_ISSUER. Default: ticketing. */
  issuer?: string
  /** Setting: TOKEN_AUDIENCE. Default: ticketing. */
  audience?: string
  /** The URL of the revocation feed. Without it, a token is valid until it expires. Setting: REVOCATIONS_URL. */
  revocationsUrl?: string
  /** Whether a request is rejected with 503 if the feed is unavailable for 30 s. Setting: REVOCATIONS_STRICT=on. */
  revocationsStrict?: boolean
  /** The URL of the introspection endpoint. Setting: INTROSPECTION_URL. */
  introspectionUrl?: string
  /** The consumer's name and secret, as `name:secret`. Setting: INTROSPECTION_SECRET. */
  introspectionSecret?: string
  /** The maximum number of verified tokens in the cache. Default: 4096. 0 disables the cache. */
  cacheSize?: number
  /** Receives each outage once, and the unusable keys of each changed set. Default: one line of JSON to console.warn. */
  onProblem?: (problem: Problem) => void
  /** The settings. Default: process.env. */
  environment?: Readonly<Record<string, string | undefined>>
  /** Returns the time in milliseconds. Default: Date.now. */
  now?: () => number
  /** Default: the global fetch. */
  fetch?: Fetch
}

/** The valid settings of a verifier. */
export interface Settings {
  mounted: KeySet | null
  keysFile?: string
  keysUrl?: string
  issuer: string
  audience: string
  revocationsUrl?: string
  strict: boolean
  introspectionUrl?: string
  authorization?: string
  cacheSize: number
}

/** A SettingsError lists every problem of the settings. It never contains a value. */
export class SettingsError extends Error {
  override name = 'SettingsError'

  constructor(readonly problems: readonly string[]) {
    super(`The settings of the verifier are not valid: ${problems.join('; ')}.`)
  }
}

export function readSettings(options: VerifierOptions, outages: Outages): Settings {
  const environment = options.environment ?? process.env
  const problems: string[] = []
  const text = (option: string | undefined, name: string): string | undefined => (option ?? environment[name])?.trim() || undefined
  const url = (option: string | undefined, name: string): string | undefined => {
    const value = text(option, name)
    if (value === undefined || isHTTP(value)) return value
    problems.push(`${name} is not an http or https URL without a user, a query and a fragment`)
    return undefined
  }

  let mounted: KeySet | null = null
  const parse = (name: string, data: Uint8Array, report: (problem: string) => void): void => {
    try {
      mounted = parseKeys(data, report)
    } catch (err) {
      problems.push(`${name} ${(err as Error).message}`)
    }
  }
  const own = options.keys !== undefined || options.keysFile !== undefined || options.keysUrl !== undefined
  const keys = own ? (typeof options.keys === 'object' ? JSON.stringify(options.keys) : options.keys?.trim()) : text(undefined, 'VERIFYING_KEYS')
  const keysFile = own ? options.keysFile : text(undefined, 'VERIFYING_KEYS_FILE')
  const keysUrl = own && !options.keysUrl ? undefined : url(options.keysUrl, 'VERIFYING_KEYS_URL')
  const noUrl = own ? !options.keysUrl : !text(undefined, 'VERIFYING_KEYS_URL')
  if (keys && keysFile) problems.push('VERIFYING_KEYS and VERIFYING_KEYS_FILE are both set')
  else if (keys) parse('VERIFYING_KEYS', Buffer.from(keys), (problem) => outages.unusedKey('keys', `VERIFYING_KEYS ${problem}`))
  else if (keysFile) {
    let data: Uint8Array | undefined
    try {
      data = readFileSync(keysFile)
    } catch {
      if (noUrl) problems.push('VERIFYING_KEYS_FILE names a file that cannot be read')
    }
    if (data) parse('VERIFYING_KEYS_FILE', data, () => {}) // the first request reads the file again, and reports
  } else if (noUrl) problems.push('VERIFYING_KEYS, VERIFYING_KEYS_FILE or VERIFYING_KEYS_URL is not set')

  const revocationsUrl = url(options.revocationsUrl, 'REVOCATIONS_URL')
  const strictText = text(undefined, 'REVOCATIONS_STRICT') ?? 'off'
  if (options.revocationsStrict === undefined && strictText !== 'on' && strictText !== 'off') problems.push('REVOCATIONS_STRICT is not on or off')
  const strict = options.revocationsStrict ?? strictText === 'on'
  if (strict && !text(options.revocationsUrl, 'REVOCATIONS_URL')) problems.push('REVOCATIONS_STRICT needs REVOCATIONS_URL')

  const introspectionUrl = url(options.introspectionUrl, 'INTROSPECTION_URL')
  const secret = text(options.introspectionSecret, 'INTROSPECTION_SECRET')
  if (secret && !/^[\x21-\x39\x3b-\x7e]+:[\x21-\x7e]+$/.test(secret)) problems.push('INTROSPECTION_SECRET is not name:secret in ASCII without spaces')
  if (secret && !text(options.introspectionUrl, 'INTROSPECTION_URL')) problems.push('INTROSPECTION_SECRET needs INTROSPECTION_URL')

  const cacheSize = options.cacheSize ?? 4096
  if (!Number.isInteger(cacheSize) || cacheSize < 0) problems.push('cacheSize is not a whole number of 0 or more')

  if (problems.length > 0) throw new SettingsError(problems)
  return {
    mounted, keysFile, keysUrl, revocationsUrl, strict, introspectionUrl, cacheSize,
    issuer: text(options.issuer, 'TOKEN_ISSUER') ?? 'ticketing',
    audience: text(options.audience, 'TOKEN_AUDIENCE') ?? 'ticketing',
    authorization: secret && `Basic ${Buffer.from(secret).toString('base64')}`,
  }
}

function isHTTP(value: string): boolean {
  if (!URL.canParse(value)) return false
  const { protocol, username, password, search, hash } = new URL(value)
  return (protocol === 'http:' || protocol === 'https:') && username + password + search + hash === ''
}
