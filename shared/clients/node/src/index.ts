/**
 * Verifies the access tokens of the platform.
 *
 * The adapters for Express, Fastify and Hono have their own entry points. This one needs no
 * framework.
 *
 * @module
 */
export * from './errors.js'
export { hasLevel, hasRole, isFresh, type Check, type Duration, type Level } from './authorize.js'
export { SettingsError, type VerifierOptions } from './settings.js'
export { createVerifier, type Identity, type RequestLike, type Verifier } from './verifier.js'
export type { JSONWebKeySet } from './keys.js'
export type { Problem } from './outages.js'
