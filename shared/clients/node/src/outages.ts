/** A Problem is a failure that requests survive. It contains no secret and no token. */
export interface Problem {
  subject: 'keys' | 'keysFile' | 'revocations' | 'introspection'
  message: string
  /** The error of the request or the file. */
  cause?: unknown
}

/** Outages reports each outage once: the first failure after a success. */
export class Outages {
  readonly #open = new Set<Problem['subject']>()

  constructor(private readonly onProblem: (problem: Problem) => void = warn) {}

  report(subject: Problem['subject'], message: string, cause?: unknown): void {
    if (this.#open.has(subject)) return
    this.#open.add(subject)
    this.#call({ subject, message, cause })
  }

  /** Reports an unusable key. This is no outage. */
  unusedKey(subject: Problem['subject'], problem: string): void {
    this.#call({ subject, message: `${problem}: the key is not used` })
  }

  #call(problem: Problem): void {
    try {
      this.onProblem(problem)
    } catch {} // a failing callback must not reject a valid token
  }

  end(subject: Problem['subject']): void {
    this.#open.delete(subject)
  }
}

function warn({ subject, message, cause }: Problem): void {
  const { name, code } = (cause instanceof Error ? cause.cause ?? cause : {}) as { name?: string, code?: string }
  const status = (cause as { status?: number } | undefined)?.status
  console.warn(JSON.stringify({ level: 'WARN', msg: message, subject, error: code ?? name, status }))
}
