import { STATUS_CODES } from 'node:http'
import { CustomError, type ErrorItem } from './errors.js'

// The public texts of errors of a body parser or router. Their own messages can contain the input.
const requestErrors: Record<number, string> = {
  400: 'The request is not valid.',
  413: 'The body is too large.',
  415: 'The body has an unsupported type or encoding.',
}

class OtherError extends CustomError {
  constructor(readonly statusCode: number, private readonly errors: ErrorItem[], cause: unknown) {
    super(errors[0]?.message ?? '', { cause })
  }

  serializeErrors(): ErrorItem[] { return this.errors }
}

/**
 * Returns the error to answer with. An unknown error becomes a 500 with a fixed text.
 *
 * A CustomError is recognised by its members, because a service can load both the ECMAScript
 * module and the CommonJS module of this package.
 */
export function toCustomError(err: unknown): CustomError {
  if (err instanceof CustomError) return err
  const e = (typeof err === 'object' && err !== null ? err : {}) as Partial<CustomError> & { status?: unknown, expose?: unknown, code?: unknown }
  const status = e.statusCode ?? e.status
  if (typeof status === 'number' && typeof e.serializeErrors === 'function') {
    return Object.assign(new OtherError(status, e.serializeErrors(), err), { headers: e.headers ?? {} })
  }
  // Errors of http-errors, of a router, of Hono and of Fastify are about the request.
  const ofRequest = e.expose === true || e instanceof URIError || typeof e.getResponse === 'function' || String(e.code).startsWith('FST_ERR_')
  if (ofRequest && typeof status === 'number' && status >= 400 && status < 500) {
    return new OtherError(status, [{ message: requestErrors[status] ?? STATUS_CODES[status] ?? requestErrors[400]! }], err)
  }
  return new OtherError(500, [{ message: 'Something went wrong.' }], err)
}

/**
 * Writes an error of 500 or more to the log as one JSON object. It leaves out the message, because
 * the message of a driver or parser can contain the input.
 */
export function logError(err: CustomError): void {
  if (err.statusCode < 500) return
  const cause = err.cause instanceof Error ? err.cause : err
  const code = (cause as { code?: unknown }).code
  console.error(JSON.stringify({
    level: 'ERROR', msg: 'the request failed', status: err.statusCode, error: cause.name,
    code: typeof code === 'string' || typeof code === 'number' ? code : undefined,
    at: cause.stack?.split('\n').filter((line) => /^\s+at /.test(line)).slice(0, 5).map((line) => line.trim()),
  }))
}
