/** An item of the response body `{"errors":[…]}`. */
export interface ErrorItem {
  message: string
  field?: string
}

/** Headers of an error response. */
export interface ErrorHeaders { [name: string]: string }

/**
 * CustomError is an error with a response. Its message is public.
 *
 * Fastify and Express read `statusCode` and `headers` of an error, and Hono calls `getResponse`.
 * So the status and the challenge are right even without the `errorHandler` of this package.
 */
export abstract class CustomError extends Error {
  abstract statusCode: number
  abstract serializeErrors(): ErrorItem[]

  /** Headers of the response, such as WWW-Authenticate. */
  headers: ErrorHeaders = {}

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = new.target.name
  }

  /** Returns the response to the error, in the format of the platform. */
  getResponse(): Response {
    return new Response(JSON.stringify({ errors: this.serializeErrors() }), {
      status: this.statusCode,
      headers: { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff', ...this.headers },
    })
  }
}

abstract class SimpleError extends CustomError {
  serializeErrors(): ErrorItem[] { return [{ message: this.message }] }
}

export class BadRequestError extends SimpleError {
  statusCode = 400
}

/** NotAuthorizedError is the error for a request without a required bearer token. It has no error code (RFC 6750 section 3.1). */
export class NotAuthorizedError extends SimpleError {
  statusCode = 401

  constructor(message = 'Not authorized', options?: ErrorOptions) {
    super(message, options)
    this.headers['WWW-Authenticate'] = 'Bearer'
  }
}

/** InvalidTokenError is the error for a forged, expired or revoked token. Its `cause` states the reason and never contains the token. */
export class InvalidTokenError extends NotAuthorizedError {
  constructor(reason: string) {
    super('The token is not valid.', { cause: new Error(reason) })
    this.headers['WWW-Authenticate'] = 'Bearer error="invalid_token"'
  }
}

/** StepUpRequiredError is the error for a valid token that does not prove enough (RFC 9470 section 3). */
export class StepUpRequiredError extends NotAuthorizedError {
  readonly acrValues: string | undefined
  readonly maxAge: number | undefined

  /** `acrValues` is the required level. `maxAge` is the maximum age of the sign-in, in seconds. */
  constructor({ acrValues, maxAge }: { acrValues?: string, maxAge?: number }) {
    super('You must sign in again for this.')
    this.acrValues = acrValues
    this.maxAge = maxAge
    let challenge = 'Bearer error="insufficient_user_authentication"'
    if (acrValues !== undefined) challenge += `, acr_values="${acrValues}"`
    if (maxAge !== undefined) challenge += `, max_age="${maxAge}"`
    this.headers['WWW-Authenticate'] = challenge
  }
}

/** ForbiddenError is the error for a user without the required role (RFC 6750 section 3.1). */
export class ForbiddenError extends SimpleError {
  statusCode = 403

  constructor(message = 'You are not allowed to do this.') {
    super(message)
    this.headers['WWW-Authenticate'] = 'Bearer error="insufficient_scope"'
  }
}

export class NotFoundError extends SimpleError {
  statusCode = 404

  constructor(message = 'Not Found') { super(message) }
}

/** UnavailableError is the error for a temporary failure. `retryAfter` is in seconds. */
export class UnavailableError extends SimpleError {
  statusCode = 503
  readonly retryAfter: number

  constructor({ retryAfter = 1, cause }: { retryAfter?: number, cause?: unknown } = {}) {
    super('The service is unavailable. Try again shortly.', { cause })
    this.retryAfter = Math.max(1, Math.ceil(retryAfter))
    this.headers['Retry-After'] = String(this.retryAfter)
  }
}

export class DatabaseConnectionError extends CustomError {
  statusCode = 500
  reason = 'Error connecting to database'

  constructor(options?: ErrorOptions) { super('Error connecting to database', options) }

  serializeErrors(): ErrorItem[] { return [{ message: this.reason }] }
}

/** FieldError is an error of express-validator: version 6 has `param`, and version 7 has `path`. */
export interface FieldError {
  msg: unknown
  path?: unknown
  param?: unknown
}

export class RequestValidationError extends CustomError {
  statusCode = 400

  constructor(readonly errors: readonly FieldError[]) { super('Invalid request parameters') }

  serializeErrors(): ErrorItem[] {
    return this.errors.map(({ msg, path, param }) => {
      const field = path ?? param
      const message = typeof msg === 'string' ? msg : 'Invalid value'
      return typeof field === 'string' && field !== '' ? { message, field } : { message }
    })
  }
}
