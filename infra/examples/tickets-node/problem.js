import { CustomError } from '@ticketing/auth'

// A Problem is an error response that the package has no class for.
export class Problem extends CustomError {
  constructor(statusCode, message) {
    super(message)
    this.statusCode = statusCode
  }

  serializeErrors() { return [{ message: this.message }] }
}
