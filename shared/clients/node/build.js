// Builds dist. TypeScript writes one module format in a run, so build runs it twice. It needs no
// other tool.
import { execFileSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc')
process.chdir(import.meta.dirname)
rmSync('dist', { recursive: true, force: true })
execFileSync(process.execPath, [tsc], { stdio: 'inherit' })
execFileSync(process.execPath, [tsc, '--module', 'commonjs', '--moduleResolution', 'node10', '--outDir', 'dist/cjs'], { stdio: 'inherit' })
writeFileSync('dist/cjs/package.json', '{"type":"commonjs"}\n')
