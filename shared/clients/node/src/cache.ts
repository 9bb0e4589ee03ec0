/**
 * Generations is a map of at most `size` entries. It has two generations: when the young one is
 * full, it replaces the old one. An entry that is read moves to the young one.
 */
export class Generations<K, V> {
  #young = new Map<K, V>()
  #old = new Map<K, V>()
  readonly #half: number

  constructor(size: number) {
    this.#half = Math.floor(size / 2)
  }

  get(key: K): V | undefined {
    const young = this.#young.get(key)
    if (young !== undefined) return young
    const old = this.#old.get(key)
    if (old !== undefined) this.set(key, old)
    return old
  }

  set(key: K, value: V): void {
    if (this.#half === 0) return
    if (this.#young.size >= this.#half && !this.#young.has(key)) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(key, value)
  }

  get size(): number { return this.#young.size + this.#old.size }
}
