/** Returns the JSON value of a text. It throws a SyntaxError for a duplicate name or a lone surrogate, which JSON.parse accepts. */
export function parseJSON(text: string): unknown {
  const value: unknown = JSON.parse(text)
  checkNames(text)
  return value
}

/**
 * Throws a SyntaxError if an object in a JSON text has a name twice, or if a string has a lone
 * surrogate in an escape. The text must be valid JSON, so each quotation mark outside a string
 * starts a string.
 */
function checkNames(text: string): void {
  const open: (Set<string> | null)[] = [] // the names of each open object, and null for an array
  let name = false // the next string is a name
  for (let i = 0; i < text.length; i++) {
    switch (text[i]) {
      case '{': open.push(new Set()); name = true; break
      case '[': open.push(null); name = false; break
      case '}': case ']': open.pop(); name = false; break
      case ':': name = false; break
      case ',': name = open.at(-1) != null; break
      case '"': {
        let end = text.indexOf('"', i + 1)
        let string = text.slice(i + 1, end)
        if (string.includes('\\')) {
          for (end = i + 1; text[end] !== '"';) end += text[end] === '\\' ? 2 : 1
          string = JSON.parse(text.slice(i, end + 1)) as string
          if (/\p{Surrogate}/u.test(string)) throw new SyntaxError('a string has a lone surrogate')
        }
        if (name) {
          const names = open.at(-1)!
          if (names.has(string)) throw new SyntaxError('a name is duplicated')
          names.add(string)
        }
        i = end
      }
    }
  }
}

/** Returns the bytes of a base64url text. It throws a SyntaxError unless the text is the only encoding of the bytes (RFC 7515 section 2). */
export function decodeBase64url(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64url')
  if (bytes.toString('base64url') !== text) throw new SyntaxError('the text is not base64url')
  return bytes
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Returns the JSON object in bytes of UTF-8, with the errors of parseJSON. */
export function parseObject(bytes: Uint8Array): Record<string, unknown> {
  const value = parseJSON(utf8.decode(bytes))
  if (!isObject(value)) throw new SyntaxError('the JSON text is not an object')
  return value
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
