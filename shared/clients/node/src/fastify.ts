/**
 * A plugin for Fastify 5.
 *
 * @module
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { hasLevel, hasRole, isFresh, type Check, type Duration, type Level } from './authorize.js'
import { Authenticator, defaultVerifier } from './default.js'
import { logError, toCustomError } from './respond.js'
import type { Identity, Verifier } from './verifier.js'

export * from './index.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** The user of the access token, or null without a bearer token. */
    currentUser: Identity | null
  }
}

/** A handler for onRequest or preHandler of a route. */
export type Hook = (request: FastifyRequest) => Promise<void>

export interface AuthOptions {
  /** Default: the verifier that the environment configures. */
  verifier?: Verifier
}

const required = (...checks: Check[]): Hook => async (request) => {
  request.currentUser = await authenticatorOf(request).require(request.raw, checks)
}

/** Rejects a request without a valid token. */
export const requireAuth: Hook = required()

/** Rejects a user without any of the roles. */
export const requireRole = (...roles: string[]): Hook => required(hasRole(...roles))

/** Rejects a user whose sign-in is older than a duration such as '5m' or 300000. */
export const requireFresh = (maxAge: Duration): Hook => required(isFresh(maxAge))

/** Rejects a user whose sign-in has a lower level. */
export const requireLevel = (level: Level): Hook => required(hasLevel(level))

const authenticator = Symbol('authenticator')

function authenticatorOf(request: FastifyRequest): Authenticator {
  const found = (request.server as unknown as Record<symbol, Authenticator | undefined>)[authenticator]
  if (!found) throw new Error('the plugin of @ticketing/auth/fastify is not registered')
  return found
}

/** Sets request.currentUser of every request. An invalid token is an error. */
export async function auth(app: FastifyInstance, { verifier }: AuthOptions = {}): Promise<void> {
  app.decorate(authenticator, new Authenticator(verifier ? () => verifier : defaultVerifier))
  app.decorateRequest('currentUser', null)
  app.addHook('onRequest', async (request) => {
    request.currentUser = await authenticatorOf(request).identity(request.raw)
  })
}

// The plugin applies to the routes of the application that registers it.
Object.assign(auth, { [Symbol.for('skip-override')]: true, [Symbol.for('fastify.display-name')]: '@ticketing/auth' })

export default auth

/** Answers an error in the format of the platform: app.setErrorHandler(errorHandler). */
export function errorHandler(err: unknown, _request: FastifyRequest, reply: FastifyReply): void {
  const error = toCustomError(err)
  logError(error)
  reply.code(error.statusCode).headers({ 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff', ...error.headers })
    .type('application/json').serializer((body: string) => body).send(JSON.stringify({ errors: error.serializeErrors() }))
}
