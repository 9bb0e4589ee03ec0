import { createLocalJWKSet, createRemoteJWKSet, errors, jwtVerify } from 'jose'
import { Problem } from './problem.js'

// newIdentity returns a middleware that verifies the access token of the auth system and sets
// req.user to the id of the user. It rejects a request without a valid token (RFC 6750 section 3).
//
// It sends no request to the auth system, except for the keys. So it accepts the token of a
// session that has ended until the token expires, by default for at most 15 minutes.
export function newIdentity({ keys, url, issuer, audience }) {
  const keySet = url
    ? createRemoteJWKSet(new URL(url), { cacheMaxAge: 300_000, timeoutDuration: 3_000 })
    : createLocalJWKSet(parse(keys))
  const options = {
    algorithms: ['EdDSA', 'ES256'], // never what the header of the token asks for
    typ: 'at+jwt',
    issuer,
    audience,
    requiredClaims: ['sub', 'sid', 'iat', 'exp'],
  }
  return async (req, res, next) => {
    const fields = req.headersDistinct.authorization ?? ['']
    const [scheme, token] = fields[0].split(/ +(.*)/)
    if (scheme.toLowerCase() !== 'bearer') {
      res.set('WWW-Authenticate', 'Bearer')
      throw new Problem(401, 'A bearer token is needed.')
    }
    try {
      if (fields.length > 1 || !token || token.length > 8192) throw new errors.JWTInvalid()
      const { payload } = await jwtVerify(token, keySet, options)
      if (payload.iat > Date.now() / 1000 + 30) throw new errors.JWTInvalid()
      req.user = payload.sub
    } catch (err) {
      // The keys are not reachable: the token can be valid.
      if (!(err instanceof errors.JOSEError) || ['ERR_JWKS_TIMEOUT', 'ERR_JOSE_GENERIC'].includes(err.code)) {
        throw new Problem(503, 'The service failed.', err)
      }
      res.set('WWW-Authenticate', 'Bearer error="invalid_token"')
      throw new Problem(401, 'The token is not valid.')
    }
    next()
  }
}

function parse(keys) {
  try {
    return JSON.parse(keys)
  } catch {
    throw new Error('Set VERIFYING_KEYS, VERIFYING_KEYS_FILE or JWKS_URL to the public keys.')
  }
}
