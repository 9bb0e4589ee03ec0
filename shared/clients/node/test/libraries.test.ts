// Tests with the libraries that other teams use. They are the source of the table in
// infra/docs/verify-tokens-node.md.
import assert from 'node:assert/strict'
import { createPublicKey, type JsonWebKey } from 'node:crypto'
import { test, type TestContext } from 'node:test'
import express from 'express'
import { auth } from 'express-oauth2-jwt-bearer'
import * as fastJWT from 'fast-jwt'
import * as jose from 'jose'
import jsonwebtoken from 'jsonwebtoken'
import jwksClient from 'jwks-rsa'
import * as oauth from 'oauth4webapi'
import { createVerifier } from '@ticketing/auth'
import { createTestIssuer, type TestIssuer } from '@ticketing/auth/testing'
import { serve } from './fixture.js'

type Alg = 'EdDSA' | 'ES256'

interface Setup { t: TestContext, alg: Alg, keys: { keys: object[] }, url: string }

/** Verifies a token, and rejects if the library does not accept it. */
type Verify = (token: string) => Promise<unknown>

const issuer = 'https://auth.example'
const audience = 'tickets'
const pemOf = (keys: { keys: object[] }) => createPublicKey({ format: 'jwk', key: keys.keys[0] as JsonWebKey }).export({ type: 'spki', format: 'pem' }) as string

const libraries: { name: string, algs: Alg[], typ: boolean, start: (s: Setup) => Verify | Promise<Verify> }[] = [
  {
    name: '@ticketing/auth', algs: ['EdDSA', 'ES256'], typ: true,
    start: ({ url }) => createVerifier({ environment: {}, keysUrl: url, issuer, audience }).verifyToken,
  },
  {
    name: 'jose', algs: ['EdDSA', 'ES256'], typ: true,
    start: ({ url }) => {
      const keySet = jose.createRemoteJWKSet(new URL(url))
      return (token) => jose.jwtVerify(token, keySet, { algorithms: ['EdDSA', 'ES256'], typ: 'at+jwt', issuer, audience })
    },
  },
  {
    name: 'jsonwebtoken', algs: ['ES256'], typ: false,
    start: ({ keys }) => async (token) => jsonwebtoken.verify(token, pemOf(keys), { algorithms: ['ES256'], issuer, audience }),
  },
  {
    name: 'jwks-rsa with jsonwebtoken', algs: ['ES256'], typ: false,
    start: ({ url }) => {
      const client = jwksClient({ jwksUri: url, cache: true, rateLimit: true })
      return async (token) => {
        const key = await client.getSigningKey(jsonwebtoken.decode(token, { complete: true })?.header.kid)
        return jsonwebtoken.verify(token, key.getPublicKey(), { algorithms: ['ES256'], issuer, audience })
      }
    },
  },
  {
    name: 'oauth4webapi', algs: ['EdDSA', 'ES256'], typ: true,
    start: ({ url }) => (token) => oauth.validateJwtAccessToken(
      { issuer, jwks_uri: url },
      new Request('https://tickets.example', { headers: { Authorization: `Bearer ${token}` } }),
      audience, { [oauth.allowInsecureRequests]: true },
    ),
  },
  {
    name: 'express-oauth2-jwt-bearer, strict', algs: ['EdDSA', 'ES256'], typ: true,
    start: async ({ t, url, alg }) => {
      const app = express()
      app.get('/', auth({ issuer, audience, jwksUri: url, tokenSigningAlg: alg, strict: true }), (_req, res) => { res.end() })
      app.use(((err, _req, res, _next) => { res.status(err.status).end() }) as express.ErrorRequestHandler)
      const service = await serve(t, app)
      return async (token) => {
        const { status } = await fetch(service, { headers: { Authorization: `Bearer ${token}` } })
        assert.equal(status, 200)
      }
    },
  },
  {
    name: 'fast-jwt', algs: ['EdDSA', 'ES256'], typ: true,
    start: ({ keys, alg }) => {
      const verify = fastJWT.createVerifier({ key: pemOf(keys), algorithms: [alg], allowedIss: issuer, allowedAud: audience, checkTyp: 'at+jwt' })
      return async (token) => verify(token)
    },
  },
]

/** Returns tokens that each library must reject, by name. */
async function attacks(valid: TestIssuer, attacker: TestIssuer, alg: Alg): Promise<Record<string, string>> {
  const now = Math.floor(Date.now() / 1000)
  const [head, payload, signature] = (await valid.token()).split('.') as [string, string, string]
  const encode = (o: object) => Buffer.from(JSON.stringify(o)).toString('base64url')
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as object
  const kid = (valid.keys.keys[0] as { kid: string }).kid
  const hs256 = await new jose.SignJWT({ ...claims }).setProtectedHeader({ alg: 'HS256', typ: 'at+jwt', kid }).sign(Buffer.from(pemOf(valid.keys)))
  return {
    'other claims': `${head}.${encode({ ...claims, sub: 'bob' })}.${signature}`,
    'another signature': `${head}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`,
    'the key of an attacker': await attacker.token({}, { kid }),
    'no signature': `${encode({ alg: 'none', typ: 'at+jwt', kid })}.${payload}.`,
    'the public key as an HMAC key': hs256,
    'the other algorithm': `${encode({ alg: alg === 'EdDSA' ? 'ES256' : 'EdDSA', typ: 'at+jwt', kid })}.${payload}.${signature}`,
    'an expired token': await valid.token({ iat: now - 3600, exp: now - 60 }),
    'another issuer': await valid.token({ iss: 'https://evil.example' }),
    'another audience': await valid.token({ aud: 'mail' }),
  }
}

for (const { name, algs, typ, start } of libraries) {
  for (const alg of algs) {
    test(`${name}, ${alg}`, async (t) => {
      const [valid, attacker] = await Promise.all([1, 2].map(() => createTestIssuer({ issuer, audience, alg })))
      const url = await serve(t, (_req, res) => { res.setHeader('Content-Type', 'application/json').end(JSON.stringify(valid!.keys)) })
      const verify = await start({ t, alg, keys: valid!.keys, url })
      await verify(await valid!.token())
      await verify(await valid!.token({ roles: ['admin'], aud: [audience, 'mail'] }))
      for (const [attack, token] of Object.entries(await attacks(valid!, attacker!, alg))) {
        await assert.rejects(Promise.resolve().then(() => verify(token)), attack)
      }
      const wrongType = await valid!.token({}, { typ: 'JWT' })
      if (typ) await assert.rejects(Promise.resolve().then(() => verify(wrongType)), 'another type')
      else await verify(wrongType) // the service must check the type
    })
  }
}

test('jsonwebtoken cannot verify Ed25519', async () => {
  const { keys, token } = await createTestIssuer({ issuer, audience })
  const signed = await token()
  assert.throws(() => jsonwebtoken.verify(signed, pemOf(keys), { algorithms: ['EdDSA' as 'ES256'], issuer, audience }))
})

test('the validators of RFC 9068 need client_id', async (t) => {
  const { keys, token } = await createTestIssuer({ issuer, audience })
  const signed = await token({ client_id: undefined })
  const url = await serve(t, (_req, res) => { res.setHeader('Content-Type', 'application/json').end(JSON.stringify(keys)) })
  for (const { name, start } of libraries.filter(({ name }) => /oauth/.test(name))) {
    const verify = await start({ t, alg: 'EdDSA', keys, url })
    await assert.rejects(Promise.resolve(verify(signed)), name)
  }
})
