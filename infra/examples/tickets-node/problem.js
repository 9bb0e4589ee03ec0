// A Problem is an error response in the format of the platform. Only the log receives the cause.
export class Problem extends Error {
  constructor(status, errors, cause) {
    const all = typeof errors === 'string' ? [{ message: errors }] : errors
    super(all[0].message, { cause })
    this.status = status
    this.errors = all
  }
}
