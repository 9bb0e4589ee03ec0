/**
 * Middleware for Hono 4 on Node.js.
 *
 * @module
 */
import type { Context, ErrorHandler, MiddlewareHandler } from 'hono'
import { hasLevel, hasRole, isFresh, type Check, type Duration, type Level } from './authorize.js'
import { Authenticator, defaultVerifier, type GetVerifier } from './default.js'
import { logError, toCustomError } from './respond.js'
import type { Identity, Verifier } from './verifier.js'

export * from './index.js'

declare module 'hono' {
  interface ContextVariableMap {
    /** The user of the access token, or null without a bearer token. */
    currentUser: Identity | null
  }
}

/** The middleware of one verifier. */
export interface Auth {
  /** Sets the variable currentUser. An invalid token is an error. */
  currentUser: MiddlewareHandler
  /** Sets the variable currentUser, and rejects a request without a valid token. */
  requireAuth: MiddlewareHandler
  /** Rejects a user without any of the roles. */
  requireRole: (...roles: string[]) => MiddlewareHandler
  /** Rejects a user whose sign-in is older than a duration such as '5m' or 300000. */
  requireFresh: (maxAge: Duration) => MiddlewareHandler
  /** Rejects a user whose sign-in has a lower level. */
  requireLevel: (level: Level) => MiddlewareHandler
}

/** Returns the middleware of a verifier. */
export function createAuth(verifier: Verifier): Auth {
  return middleware(() => verifier)
}

function middleware(verifier: GetVerifier): Auth {
  const authenticator = new Authenticator(verifier)
  const required = (...checks: Check[]): MiddlewareHandler => async (c, next) => {
    c.set('currentUser', await authenticator.require(c.req.raw, checks))
    await next()
  }
  return {
    currentUser: async (c, next) => {
      c.set('currentUser', await authenticator.identity(c.req.raw))
      await next()
    },
    requireAuth: required(),
    requireRole: (...roles) => required(hasRole(...roles)),
    requireFresh: (maxAge) => required(isFresh(maxAge)),
    requireLevel: (level) => required(hasLevel(level)),
  }
}

/** The middleware of the verifier that the environment configures. */
export const { currentUser, requireAuth, requireRole, requireFresh, requireLevel } = middleware(defaultVerifier)

/** Answers an error in the format of the platform: app.onError(errorHandler). */
export const errorHandler: ErrorHandler = (err: Error, c: Context) => {
  const error = toCustomError(err)
  logError(error)
  const response = error.getResponse()
  return c.newResponse(response.body, response)
}
