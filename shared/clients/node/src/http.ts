/** The part of the global fetch function that this package uses. */
export type Fetch = (input: string, init: RequestInit) => Promise<Response>

const timeout = 3_000

export interface GetOptions {
  maxBytes: number
  headers?: Record<string, string>
  /** A form makes the request a POST. */
  form?: URLSearchParams
}

/** An HTTPError is a response with a status other than 200. */
export class HTTPError extends Error {
  constructor(readonly status: number) { super(`the server answered ${status}`) }
}

/** Returns the body of a response with the status 200. It follows no redirect, and takes at most three seconds and maxBytes. */
export async function get(fetch: Fetch, url: string, { maxBytes, headers, form }: GetOptions): Promise<{ body: Uint8Array, headers: Headers }> {
  const response = await fetch(url, {
    method: form ? 'POST' : 'GET', headers, body: form, redirect: 'error', signal: AbortSignal.timeout(timeout),
  })
  if (response.status !== 200) {
    response.body?.cancel().catch(() => {})
    throw new HTTPError(response.status)
  }
  const chunks: Uint8Array[] = []
  let size = 0
  const reader = response.body?.getReader()
  for (;;) {
    const { done, value } = await reader?.read() ?? { done: true, value: undefined }
    if (done || !value) break
    size += value.length
    if (size > maxBytes) {
      reader?.cancel().catch(() => {})
      throw new Error(`the response is larger than ${maxBytes} bytes`)
    }
    chunks.push(value)
  }
  return { body: Buffer.concat(chunks), headers: response.headers }
}
