/**
 * Access tokens for the tests of a service.
 *
 * @module
 */
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from 'jose'

export interface IssuerOptions {
  /** Default: ticketing. */
  issuer?: string
  /** Default: ticketing. */
  audience?: string
  /** Default: EdDSA. */
  alg?: 'EdDSA' | 'ES256'
  /** Returns the time in milliseconds. Default: Date.now. */
  now?: () => number
}

/** The claims of a token. A claim that is undefined is absent. */
export interface TestClaims {
  [claim: string]: unknown
  sub?: string
  email?: string
  email_verified?: boolean
  sid?: string
  roles?: string[]
  amr?: string[]
  acr?: string
  auth_time?: number
  iat?: number
  exp?: number
}

export interface TestIssuer {
  /** The public JWK Set. */
  keys: { keys: object[] }
  /** The settings of a verifier, for process.env or createVerifier({ environment }). */
  environment: Record<string, string>
  /** Returns a token that is valid now for 15 minutes. Claims and header override the standard ones. */
  token(claims?: TestClaims, header?: Record<string, unknown>): Promise<string>
  /** Returns the value of an Authorization header with such a token. */
  authorization(claims?: TestClaims): Promise<string>
}

/** Returns an issuer with a new key. */
export async function createTestIssuer({ issuer = 'ticketing', audience = 'ticketing', alg = 'EdDSA', now = Date.now }: IssuerOptions = {}): Promise<TestIssuer> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  const jwk = await exportJWK(publicKey)
  const kid = await calculateJwkThumbprint(jwk)
  const keys = { keys: [{ ...jwk, kid, alg, use: 'sig' }] }
  const token: TestIssuer['token'] = (claims = {}, header = {}) => {
    const iat = Math.floor(now() / 1000)
    const sub = claims.sub ?? 'ann'
    return new SignJWT({
      iss: issuer, aud: audience, sub, client_id: 'web', sid: Buffer.from(`session of ${sub}`).toString('hex'), jti: crypto.randomUUID(),
      iat, exp: iat + 900, email: `${sub}@example.com`, email_verified: true, auth_time: iat, amr: ['pwd'], acr: 'aal1', ...claims,
    }).setProtectedHeader({ alg, typ: 'at+jwt', kid, ...header }).sign(privateKey)
  }
  return {
    keys, token,
    environment: { VERIFYING_KEYS: JSON.stringify(keys), TOKEN_ISSUER: issuer, TOKEN_AUDIENCE: audience },
    authorization: async (claims) => `Bearer ${await token(claims)}`,
  }
}
