import type { Check } from './authorize.js'
import { NotAuthorizedError } from './errors.js'
import { createVerifier, type Identity, type RequestLike, type Verifier } from './verifier.js'

let standard: Verifier | undefined

/**
 * Returns the verifier of the environment. It is created at the first request, so that importing
 * the package needs no settings. To see a wrong setting at the start, call createVerifier there.
 */
export function defaultVerifier(): Verifier {
  return standard ??= createVerifier()
}

/** The lazy form of a verifier that an adapter takes. */
export type GetVerifier = () => Verifier

/** Authenticate verifies each request once: the result of the first call is the result of the others. */
export class Authenticator {
  readonly #seen = new WeakMap<object, Promise<Identity | null>>()

  constructor(private readonly verifier: GetVerifier) {}

  identity(request: RequestLike): Promise<Identity | null> {
    let identity = this.#seen.get(request)
    if (!identity) {
      identity = Promise.resolve().then(() => this.verifier().verify(request))
      this.#seen.set(request, identity)
    }
    return identity
  }

  /** Returns the identity of a request. It throws an error without one, or if a check fails. */
  async require(request: RequestLike, checks: readonly Check[] = []): Promise<Identity> {
    const identity = await this.identity(request)
    if (!identity) throw new NotAuthorizedError('A bearer token is needed.')
    for (const check of checks) check(identity, this.verifier().now())
    return identity
  }
}
