/** `npm run build:runtime`: builds the runtime's code, or says that it is there, and tells what it is. */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { blake2b } from '@noble/hashes/blake2.js';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { openCode } from '../wasm-executor/code.ts';
import { runtimeCode } from './cache.ts';

const { values } = parseArgs({ options: { output: { type: 'string', short: 'o' } } });
const start = performance.now();
let built = false;
const code = await runtimeCode(() => {
  built = true;
});
const seconds = ((performance.now() - start) / 1_000).toFixed(1);
const { version } = openCode(code);
if (values.output !== undefined) await writeFile(values.output, code);
console.log(
  `${version.specName} ${version.specVersion} (transactions ${version.transactionVersion}), ${code.length} bytes, ${built ? `built in ${seconds} s` : 'built before'}`,
);
console.log(`blake2b-256 ${toHex(blake2b(code, { dkLen: 32 }))}`);
