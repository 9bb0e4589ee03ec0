import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { once } from 'node:events'
import type { TestContext } from 'node:test'
import type { AddressInfo } from 'node:net'

/** A clock that only the test moves. */
export class Clock {
  ms = 1_772_366_400_000
  now = (): number => this.ms
  advance(seconds: number): void { this.ms += seconds * 1000 }
}

/** Starts a server until the end of the test, and returns its URL. */
export async function serve(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => { server.closeAllConnections(); server.close() })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

export async function bodyOf(req: IncomingMessage): Promise<string> {
  let body = ''
  for await (const chunk of req) body += chunk
  return body
}

export interface Call { url: URL, headers: Headers, body: string, init: RequestInit }

/**
 * A Remote replaces fetch. It counts the requests, and answers each with the next answer. The last
 * answer repeats. An answer that is an Error rejects the request.
 */
export class Remote {
  calls: Call[] = []
  answers: (Error | Response | (() => Response | Promise<Response>))[] = []

  fetch = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const request = new Request(input, init)
    this.calls.push({ url: new URL(request.url), headers: request.headers, body: await request.text(), init })
    const answer = this.answers.length > 1 ? this.answers.shift()! : this.answers[0]
    if (!answer) throw new Error('there is no answer')
    if (answer instanceof Error) throw answer
    return typeof answer === 'function' ? await answer() : answer.clone()
  }

  /** Sets the answers. An object is a JSON response. */
  answer(...answers: (object | (() => Response | Promise<Response>))[]): this {
    this.answers = answers.map((a) => (a instanceof Error || a instanceof Response || typeof a === 'function' ? a as never : Response.json(a)))
    return this
  }
}

/** A promise with its functions. */
export function deferred<T = void>(): { promise: Promise<T>, resolve: (value: T) => void, reject: (err: unknown) => void } {
  let resolve!: (value: T) => void
  let reject!: (err: unknown) => void
  const promise = new Promise<T>((a, b) => { resolve = a; reject = b })
  return { promise, resolve, reject }
}

/** Returns the error of a promise. */
export async function errorOf(promise: Promise<unknown>): Promise<any> {
  return await promise.then(() => { throw new Error('the promise was fulfilled') }, (err) => err)
}
