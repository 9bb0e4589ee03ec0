// Prints the verifications per second of one process, with and without the cache of tokens:
// npm run bench
import { createVerifier } from '@ticketing/auth'
import { createTestIssuer } from '@ticketing/auth/testing'

const seconds = Number(process.env.SECONDS ?? 2)

async function rate(run: () => Promise<unknown>): Promise<number> {
  for (let i = 0; i < 200; i++) await run()
  const began = performance.now()
  let count = 0
  while (performance.now() - began < seconds * 1000) {
    for (let i = 0; i < 20; i++) await run()
    count += 20
  }
  return Math.round(count / ((performance.now() - began) / 1000))
}

for (const alg of ['EdDSA', 'ES256'] as const) {
  const issuer = await createTestIssuer({ alg })
  const request = { headers: { authorization: await issuer.authorization({ exp: Math.floor(Date.now() / 1000) + 3600 }) } }
  const [cached, uncached] = [undefined, 0].map((cacheSize) => createVerifier({ environment: issuer.environment, cacheSize }))
  const [without, with_] = [await rate(() => uncached!.verify(request)), await rate(() => cached!.verify(request))]
  console.log(`${alg}: ${without} verifications per second without the cache, ${with_} with it (${(with_ / without).toFixed(1)} times)`)
}
