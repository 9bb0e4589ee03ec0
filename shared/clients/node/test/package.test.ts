import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'

const root = new URL('..', import.meta.url).pathname

test('the packed package works by import and by require, with types', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'auth-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const run = (command: string, ...args: string[]) => execFileSync(command, args, { cwd: folder, encoding: 'utf8' })
  const [{ filename, files }] = JSON.parse(execFileSync('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], { cwd: root, encoding: 'utf8' }))
  assert.deepEqual(files.map((f: { path: string }) => f.path).filter((path: string) => !path.startsWith('dist/')).sort(), ['README.md', 'package.json'])
  writeFileSync(join(folder, 'package.json'), '{"private":true}')
  run('npm', 'install', '--no-audit', '--no-fund', '--prefer-offline', './' + filename)
  assert.deepEqual(Object.keys(JSON.parse(readFileSync(join(folder, 'package-lock.json'), 'utf8')).packages), ['', 'node_modules/@ticketing/auth', 'node_modules/jose'])

  const body = `
    const issuer = await createTestIssuer()
    const identity = await createVerifier({ environment: issuer.environment }).verify({ headers: { authorization: await issuer.authorization() } })
    console.log(identity.id, typeof createClient, typeof currentUser, typeof auth, typeof hono.requireAuth)`
  const names = { '': '{ createVerifier }', '/testing': '{ createTestIssuer }', '/browser': '{ createClient }', '/express': '{ currentUser }', '/fastify': '{ auth }' }
  const entries = Object.entries(names)
  writeFileSync(join(folder, 'a.mjs'), entries.map(([path, name]) => `import ${name} from '@ticketing/auth${path}'\n`).join('') + "import * as hono from '@ticketing/auth/hono'\n" + body)
  writeFileSync(join(folder, 'a.cjs'), entries.map(([path, name]) => `const ${name} = require('@ticketing/auth${path}')\n`).join('') + `const hono = require('@ticketing/auth/hono')\n;(async () => {${body}})()`)
  for (const file of ['a.mjs', 'a.cjs']) assert.equal(run(process.execPath, file), 'ann function function function function\n', file)

  // The types, for both module systems and for the resolution of TypeScript before version 4.7.
  const source = `import { createVerifier, type Identity } from '@ticketing/auth'\nimport { createClient } from '@ticketing/auth/browser'\nimport { createTestIssuer } from '@ticketing/auth/testing'\nexport const id: Promise<Identity | null> = createVerifier().verify({ headers: {} })\n// @ts-expect-error\ncreateVerifier({ issuer: 1 })\nexport { createClient, createTestIssuer }\n`
  for (const file of ['t.mts', 't.cts', 't.ts']) writeFileSync(join(folder, file), source)
  const tsc = join(root, 'node_modules/typescript/bin/tsc')
  const common = [tsc, '--noEmit', '--strict', '--skipLibCheck', '--types', 'node', '--typeRoots', join(root, 'node_modules/@types')]
  run(process.execPath, ...common, '--module', 'nodenext', 't.mts', 't.cts')
  run(process.execPath, ...common, '--module', 'commonjs', '--moduleResolution', 'node10', '--target', 'es2022', 't.ts')
})
