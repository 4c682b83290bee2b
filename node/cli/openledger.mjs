#!/usr/bin/env node
// The command line's entry. Started outside of npm scripts, it runs on whatever Node there is: it must say so if that one
// cannot read TypeScript. It is JavaScript for one reason more: what Node makes of the sources is kept from here on, so that
// every start but the first needs neither the time nor the memory of Node's own TypeScript reader.
import { existsSync } from 'node:fs';
import module from 'node:module';
import { fileURLToPath } from 'node:url';

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  console.error(
    `openledger needs Node 22.18 or later, this is ${process.versions.node}. "npm run openledger -- ..." brings its own.`,
  );
  process.exit(1);
}
module.enableCompileCache(fileURLToPath(new URL('../../node_modules/.cache/compile', import.meta.url)));
// A checkout runs its sources, a package what was built of them.
const built = '../../dist/node/cli/program.js';
const program = existsSync(new URL('./program.ts', import.meta.url)) ? './program.ts' : built;
const { createProgram, told } = await import(program);
try {
  const command = await createProgram(process.argv[2]);
  await command.parseAsync();
} catch (problem) {
  process.stderr.write(`${told(problem)}\n`);
  process.exitCode = 1;
}
