import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test, type TestContext } from 'node:test'
import express5 from 'express'
import { body } from 'express-validator'
import fastify from 'fastify'
import { Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { createVerifier, type Level } from '@ticketing/auth'
import * as onExpress from '@ticketing/auth/express'
import * as onFastify from '@ticketing/auth/fastify'
import * as onHono from '@ticketing/auth/hono'
import { createTestIssuer, type TestClaims } from '@ticketing/auth/testing'
import { Clock, serve } from './fixture.js'

const require = createRequire(import.meta.url)
const express4 = require('express4') as typeof express5
const commonJS = require('@ticketing/auth/express') as typeof onExpress

const clock = new Clock()
const issuer = await createTestIssuer({ now: clock.now })
const verifier = createVerifier({ environment: issuer.environment, now: clock.now })
const unavailable = createVerifier({ environment: {}, keysUrl: 'http://auth', now: clock.now, onProblem: () => {}, fetch: async () => { throw new TypeError() } })
Object.assign(process.env, issuer.environment)

type Call = (path: string, init?: RequestInit) => Promise<Response>

function expressApp(express: typeof express5) {
  return async (t: TestContext): Promise<Call> => {
    const app = express()
    const a = onExpress.createAuth(verifier)
    const answer: express5.RequestHandler = (req, res) => { res.json({ user: req.currentUser?.id ?? null, email: req.currentUser?.email, iat: req.currentUser?.iat }) }
    app.get('/optional', a.currentUser, answer)
    app.get('/required', a.currentUser, a.requireAuth, answer)
    app.get('/alone', a.requireAuth, answer)
    app.get('/role', a.requireRole('admin', 'support'), answer)
    app.get('/fresh', a.requireFresh('5m'), answer)
    app.get('/level', a.requireLevel('aal2'), answer)
    app.get('/all', a.requireAuth, a.requireRole('admin'), a.requireFresh(300_000), a.requireLevel('phr'), answer)
    app.get('/away', onExpress.createAuth(unavailable).requireAuth, answer)
    app.get('/throw', () => { throw new Error('hunter2') })
    app.get('/gone', () => { throw Object.assign(new Error('hunter2'), { status: 410, expose: true }) })
    app.get('/upstream', () => { throw Object.assign(new Error('hunter2'), { status: 404 }) })
    app.get('/missing', () => { throw new onExpress.NotFoundError() })
    app.get('/other-module', () => { throw new commonJS.ForbiddenError() })
    app.post('/body', express.json({ limit: 100 }), answer)
    app.use(onExpress.errorHandler)
    const url = await serve(t, app)
    return (path, init) => fetch(url + path, init)
  }
}

async function fastifyApp(): Promise<Call> {
  const app = fastify({ bodyLimit: 100 })
  app.setErrorHandler(onFastify.errorHandler)
  await app.register(onFastify.auth, { verifier })
  const answer = async (request: { currentUser: onFastify.Identity | null }) => {
    const user = request.currentUser
    return { user: user?.id ?? null, email: user?.email, iat: user && user.issuedAt.getTime() / 1000 }
  }
  const { requireAuth, requireRole, requireFresh, requireLevel } = onFastify
  app.get('/optional', answer)
  app.get('/required', { onRequest: requireAuth }, answer)
  app.get('/alone', { onRequest: requireAuth }, answer)
  app.get('/role', { onRequest: requireRole('admin', 'support') }, answer)
  app.get('/fresh', { onRequest: requireFresh('5m') }, answer)
  app.get('/level', { preHandler: requireLevel('aal2') }, answer)
  app.get('/all', { onRequest: [requireAuth, requireRole('admin'), requireFresh(300_000), requireLevel('phr')] }, answer)
  app.get('/throw', () => { throw new Error('hunter2') })
  app.get('/gone', () => { throw Object.assign(new Error('hunter2'), { statusCode: 410, expose: true }) })
  app.get('/upstream', () => { throw Object.assign(new Error('hunter2'), { status: 404 }) })
  app.get('/missing', () => { throw new onFastify.NotFoundError() })
  app.get('/other-module', () => { throw new commonJS.ForbiddenError() })
  app.post('/body', answer)
  await app.register(async (away) => {
    away.get('/away', { onRequest: async () => { await unavailable.verifyToken(await issuer.token()) } }, answer)
  })
  return async (path, init) => {
    const { statusCode, headers, payload } = await app.inject({ url: path, method: init?.method as 'GET' ?? 'GET', headers: init?.headers as Record<string, string>, payload: init?.body as string })
    return new Response(payload, { status: statusCode, headers: headers as Record<string, string> })
  }
}

async function honoApp(): Promise<Call> {
  const app = new Hono()
  app.onError(onHono.errorHandler)
  const a = onHono.createAuth(verifier)
  const answer = (c: import('hono').Context) => {
    const user = c.get('currentUser')
    return c.json({ user: user?.id ?? null, email: user?.email, iat: user && user.issuedAt.getTime() / 1000 })
  }
  app.get('/optional', a.currentUser, answer)
  app.get('/required', a.currentUser, a.requireAuth, answer)
  app.get('/alone', a.requireAuth, answer)
  app.get('/role', a.requireRole('admin', 'support'), answer)
  app.get('/fresh', a.requireFresh('5m'), answer)
  app.get('/level', a.requireLevel('aal2'), answer)
  app.get('/all', a.requireAuth, a.requireRole('admin'), a.requireFresh(300_000), a.requireLevel('phr'), answer)
  app.get('/away', onHono.createAuth(unavailable).requireAuth, answer)
  app.get('/throw', () => { throw new Error('hunter2') })
  app.get('/gone', () => { throw new HTTPException(410, { message: 'hunter2' }) })
  app.get('/upstream', () => { throw Object.assign(new Error('hunter2'), { status: 404 }) })
  app.get('/missing', () => { throw new onHono.NotFoundError() })
  app.get('/other-module', () => { throw new commonJS.ForbiddenError() })
  return async (path, init) => app.request(path, init)
}

const now = clock.ms / 1000
const needed = 'A bearer token is needed.'
const invalid = 'The token is not valid.'
const again = 'You must sign in again for this.'
const forbidden = 'You are not allowed to do this.'
const stepUp = 'Bearer error="insufficient_user_authentication"'
const old = { auth_time: now - 301 }
const rows: [string, TestClaims | string | null, number, string, Record<string, string>?][] = [
  ['/optional', null, 200, ''],
  ['/optional', 'Basic x', 200, ''],
  ['/optional', {}, 200, 'ann'],
  ['/optional', 'Bearer x', 401, invalid, { 'www-authenticate': 'Bearer error="invalid_token"' }],
  ['/required', null, 401, needed, { 'www-authenticate': 'Bearer' }],
  ['/required', {}, 200, 'ann'],
  ['/required', { exp: now }, 401, invalid, { 'www-authenticate': 'Bearer error="invalid_token"' }],
  ['/alone', null, 401, needed, { 'www-authenticate': 'Bearer' }],
  ['/alone', {}, 200, 'ann'],
  ['/role', null, 401, needed, { 'www-authenticate': 'Bearer' }],
  ['/role', {}, 403, forbidden, { 'www-authenticate': 'Bearer error="insufficient_scope"' }],
  ['/role', { roles: ['Admin', 'administrator'] }, 403, forbidden, { 'www-authenticate': 'Bearer error="insufficient_scope"' }],
  ['/role', { roles: ['support'] }, 200, 'ann'],
  ['/fresh', { auth_time: now - 300 }, 200, 'ann'],
  ['/fresh', { auth_time: now + 30 }, 200, 'ann'],
  ['/fresh', { auth_time: now + 31 }, 401, again, { 'www-authenticate': stepUp + ', max_age="300"' }],
  ['/alone', { auth_time: now + 31 }, 200, 'ann'],
  ['/fresh', old, 401, again, { 'www-authenticate': stepUp + ', max_age="300"' }],
  ['/fresh', { auth_time: undefined }, 401, again, { 'www-authenticate': stepUp + ', max_age="300"' }],
  ['/fresh', null, 401, needed, { 'www-authenticate': 'Bearer' }],
  ['/level', { acr: 'aal2' }, 200, 'ann'],
  ['/level', { acr: 'phr' }, 200, 'ann'],
  ['/level', {}, 401, again, { 'www-authenticate': stepUp + ', acr_values="aal2"' }],
  ['/level', { acr: undefined }, 401, again, { 'www-authenticate': stepUp + ', acr_values="aal2"' }],
  ['/level', { acr: 'aal9' }, 401, again, { 'www-authenticate': stepUp + ', acr_values="aal2"' }],
  ['/all', { roles: ['admin'], acr: 'phr' }, 200, 'ann'],
  ['/all', { acr: 'phr' }, 403, forbidden],
  ['/all', { roles: ['admin'], acr: 'phr', ...old }, 401, again],
  ['/all', { roles: ['admin'], acr: 'aal2' }, 401, again],
  ['/away', {}, 503, 'The service is unavailable. Try again shortly.', { 'retry-after': '1' }],
  ['/throw', null, 500, 'Something went wrong.'],
  ['/upstream', null, 500, 'Something went wrong.'],
  ['/gone', null, 410, 'Gone'],
  ['/missing', null, 404, 'Not Found'],
  ['/other-module', null, 403, forbidden, { 'www-authenticate': 'Bearer error="insufficient_scope"' }],
]

for (const [framework, start] of [['express 5', expressApp(express5)], ['express 4', expressApp(express4)], ['fastify', fastifyApp], ['hono', honoApp]] as const) {
  test(framework, async (t) => {
    const logged: string[] = []
    t.mock.method(console, 'error', (line: string) => logged.push(line))
    const call = await start(t)
    for (const [path, claims, status, text, headers] of rows) {
      await t.test(`${path} with ${JSON.stringify(claims)}`, async () => {
        const authorization = typeof claims === 'object' && claims ? await issuer.authorization(claims) : claims
        const response = await call(path, { headers: authorization === null ? {} : { authorization } })
        assert.equal(response.status, status)
        const got = await response.json()
        if (status === 200) {
          assert.deepEqual(got, text === '' ? { user: null, ...(got.iat === null && { iat: null }) } : { user: 'ann', email: 'ann@example.com', iat: now })
          return
        }
        assert.deepEqual(got, { errors: [{ message: text }] })
        for (const [name, value] of Object.entries({ 'content-type': 'application/json', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', ...headers })) assert.equal(response.headers.get(name), value, name)
      })
    }
    if (framework !== 'hono') {
      for (const [name, status, type, text] of [['no JSON', 400, 'application/json', '{"hunter2'], ['too large', 413, 'application/json', `"${'x'.repeat(100)}"`]] as const) {
        await t.test(`a body that is ${name}`, async () => {
          const response = await call('/body', { method: 'POST', headers: { 'content-type': type }, body: text })
          assert.equal(response.status, status)
          assert.deepEqual(await response.json(), { errors: [{ message: { 400: 'The request is not valid.', 413: 'The body is too large.' }[status] }] })
        })
      }
    }
    assert.ok(logged.some((line) => JSON.parse(line).error === 'Error'))
    assert.doesNotMatch(logged.join(), /hunter2/)
  })
}

test('the middleware of the environment, as the common package of a service has it', async (t) => {
  for (const [name, express, { currentUser, requireAuth, errorHandler, NotFoundError }] of [['ECMAScript module', express5, onExpress], ['CommonJS', express4, commonJS]] as const) {
    const app = express()
    app.use(currentUser)
    app.get('/', requireAuth, (req, res) => { res.json(req.currentUser) })
    app.use(() => { throw new NotFoundError() })
    app.use(errorHandler)
    const url = await serve(t, app)
    const iat = Math.floor(Date.now() / 1000)
    const authorization = await issuer.authorization({ iat, exp: iat + 60 })
    const got = await (await fetch(url, { headers: { authorization } })).json()
    assert.equal(got.id, 'ann', name)
    assert.equal((await fetch(url)).status, 401)
    assert.equal((await fetch(url + '/x', { headers: { authorization } })).status, 404)
  }
})

test('validateRequest', async (t) => {
  const app = express5()
  app.post('/', express5.json(), body('email').isEmail().withMessage('Email must be valid'), onExpress.validateRequest, (_req, res) => { res.end() })
  app.use(onExpress.errorHandler)
  const url = await serve(t, app)
  const post = (email: unknown) => fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ email }) })
  assert.equal((await post('ann@example.com')).status, 200)
  const response = await post(1)
  assert.equal(response.status, 400)
  assert.deepEqual(await response.json(), { errors: [{ message: 'Email must be valid', field: 'email' }] })
})

test('the error classes', () => {
  const item = (message: string, field?: string) => [field ? { message, field } : { message }]
  for (const [err, status, items] of [
    [new onExpress.BadRequestError('Title is taken'), 400, item('Title is taken')],
    [new onExpress.NotAuthorizedError(), 401, item('Not authorized')],
    [new onExpress.NotFoundError(), 404, item('Not Found')],
    [new onExpress.DatabaseConnectionError(), 500, item('Error connecting to database')],
    [new onExpress.RequestValidationError([{ msg: 'Bad', param: 'title' }]), 400, item('Bad', 'title')],
    [new onExpress.RequestValidationError([{ msg: 'Bad', path: 'title' }]), 400, item('Bad', 'title')],
    [new onExpress.RequestValidationError([{ msg: { secret: 1 } }]), 400, item('Invalid value')],
    [new onExpress.ForbiddenError(), 403, item(forbidden)],
    [new onExpress.UnavailableError({ retryAfter: 1.2 }), 503, item('The service is unavailable. Try again shortly.')],
  ] as const) {
    assert.equal(err.statusCode, status)
    assert.deepEqual(err.serializeErrors(), items)
    assert.ok(err instanceof onExpress.CustomError && err instanceof Error)
    assert.equal(err.name, err.constructor.name)
  }
})

test('an argument that is not valid is refused at the start', () => {
  const { requireFresh, requireLevel, requireRole } = onExpress
  for (const duration of ['5', '5 m', '', 'm', '-5m', 0, 999, NaN, Infinity]) assert.throws(() => requireFresh(duration), TypeError, String(duration))
  for (const duration of ['1s', '5m', '1h', 1000]) requireFresh(duration)
  for (const level of ['aal3', '', 'AAL2']) assert.throws(() => requireLevel(level as Level), TypeError)
  assert.throws(() => requireRole(), TypeError)
})

test('errors of Hono and Fastify without the error handler have the status and the challenge', async () => {
  const hono = new Hono().get('/', onHono.createAuth(verifier).requireAuth)
  const app = fastify()
  await app.register(onFastify.auth, { verifier })
  app.get('/', { onRequest: onFastify.requireAuth }, async () => '')
  const [a, b] = [await hono.request('/'), await app.inject('/')]
  assert.deepEqual([a.status, a.headers.get('www-authenticate')], [401, 'Bearer'])
  assert.deepEqual([b.statusCode, b.headers['www-authenticate']], [401, 'Bearer'])
})
