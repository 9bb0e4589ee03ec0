import { ForbiddenError, StepUpRequiredError } from './errors.js'
import { leeway, type Identity } from './verifier.js'

const levels = ['aal1', 'aal2', 'phr'] as const

/** The level of a sign-in, from the lowest to the highest. */
export type Level = typeof levels[number]

/** A maximum age: milliseconds, or text such as 30s, 5m or 1h. */
export type Duration = number | string

/** A Check throws an error if a user may not continue. Now is in milliseconds. */
export type Check = (identity: Identity, now: number) => void

/** Returns a check that a user has at least one of the roles. */
export function hasRole(...roles: string[]): Check {
  if (roles.length === 0) throw new TypeError('requireRole needs a role')
  return (identity) => {
    if (!roles.some((role) => identity.roles.includes(role))) throw new ForbiddenError()
  }
}

/** Returns a check that a user has signed in within a duration (RFC 9470). A sign-in more than 30 s in the future is not fresh. */
export function isFresh(maxAge: Duration): Check {
  const limit = milliseconds(maxAge)
  return (identity, now) => {
    const age = identity.authTime ? now - identity.authTime.getTime() : Infinity
    if (age > limit || age < -leeway * 1000) throw new StepUpRequiredError({ maxAge: Math.floor(limit / 1000) })
  }
}

/** Returns a check that a user has signed in with a level or a higher one (RFC 9470). */
export function hasLevel(level: Level): Check {
  const least = levels.indexOf(level)
  if (least < 0) throw new TypeError('requireLevel needs aal1, aal2 or phr')
  return (identity) => {
    if (levels.indexOf(identity.acr as Level) < least) throw new StepUpRequiredError({ acrValues: level })
  }
}

function milliseconds(duration: Duration): number {
  const units: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000 }
  const [, count, unit] = /^(\d+)([smh])$/.exec(String(duration)) ?? []
  const value = typeof duration === 'number' ? duration : count && unit ? Number(count) * units[unit]! : NaN
  if (!Number.isFinite(value) || value < 1_000) throw new TypeError('requireFresh needs a duration of at least one second, such as "5m" or 300000')
  return value
}
