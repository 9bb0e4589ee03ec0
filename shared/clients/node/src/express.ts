/**
 * Middleware for Express 4 and 5.
 *
 * @module
 */
import type { ErrorRequestHandler, Request, RequestHandler } from 'express'
import { hasLevel, hasRole, isFresh, type Check, type Duration, type Level } from './authorize.js'
import { Authenticator, defaultVerifier, type GetVerifier } from './default.js'
import { RequestValidationError, type FieldError } from './errors.js'
import { logError, toCustomError } from './respond.js'
import type { Identity, Verifier } from './verifier.js'

export * from './index.js'

/** The user of a request. `iat` is a NumericDate. */
export interface CurrentUser extends Identity { iat: number }

declare global {
  namespace Express {
    interface Request {
      /** The user of the access token, after currentUser, requireAuth or another middleware of this package. */
      currentUser?: CurrentUser
    }
  }
}

/** The middleware of one verifier. */
export interface Auth {
  /** Sets req.currentUser, or leaves it undefined without a bearer token. An invalid token is an error. */
  currentUser: RequestHandler
  /** Sets req.currentUser, and rejects a request without a valid token. */
  requireAuth: RequestHandler
  /** Rejects a user without any of the roles. */
  requireRole: (...roles: string[]) => RequestHandler
  /** Rejects a user whose sign-in is older than a duration such as '5m' or 300000. */
  requireFresh: (maxAge: Duration) => RequestHandler
  /** Rejects a user whose sign-in has a lower level. */
  requireLevel: (level: Level) => RequestHandler
}

/** Returns the middleware of a verifier. */
export function createAuth(verifier: Verifier): Auth {
  return middleware(() => verifier)
}

function middleware(verifier: GetVerifier): Auth {
  const authenticator = new Authenticator(verifier)
  const set = (req: Request, identity: Identity | null): void => {
    req.currentUser = identity ? { ...identity, iat: Math.floor(identity.issuedAt.getTime() / 1000) } : undefined
  }
  // Express 4 does not catch the error of an asynchronous middleware.
  const required = (...checks: Check[]): RequestHandler => (req, _res, next) => {
    authenticator.require(req, checks).then((identity) => { set(req, identity); next() }, next)
  }
  return {
    currentUser: (req, _res, next) => {
      authenticator.identity(req).then((identity) => { set(req, identity); next() }, next)
    },
    requireAuth: required(),
    requireRole: (...roles) => required(hasRole(...roles)),
    requireFresh: (maxAge) => required(isFresh(maxAge)),
    requireLevel: (level) => required(hasLevel(level)),
  }
}

/** The middleware of the verifier that the environment configures. */
export const { currentUser, requireAuth, requireRole, requireFresh, requireLevel } = middleware(defaultVerifier)

/** Rejects a request if a validation chain of express-validator has found an error. */
export const validateRequest: RequestHandler = (req, _res, next) => {
  import('express-validator')
    .then(({ validationResult }) => {
      const errors = validationResult(req)
      next(errors.isEmpty() ? undefined : new RequestValidationError(errors.array() as FieldError[]))
    })
    .catch(next)
}

/** Answers an error in the format of the platform. An unknown error is a 500 with a fixed text. */
export const errorHandler: ErrorRequestHandler = (err, _req, res, next) => {
  const error = toCustomError(err)
  logError(error)
  if (res.headersSent) {
    next(err) // Express closes the connection
    return
  }
  res.status(error.statusCode).set({ 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff', ...error.headers })
  res.setHeader('Content-Type', 'application/json') // res.set would add a charset
  res.end(JSON.stringify({ errors: error.serializeErrors() }))
}
