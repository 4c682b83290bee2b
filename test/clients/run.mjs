/** Runs every client's script against one fresh node, or those named, and says what came of it. `--url` takes a running node. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startNodeProcess } from '../bench/support/node-process.ts';
import { legacyProxy } from './legacy-proxy.mjs';

const SCRIPTS = [
  { name: '@polkadot/api', script: 'polkadot-js' },
  { name: 'polkadot-api', script: 'papi' },
  { name: 'polkadot-api, legacy', script: 'papi', legacy: true },
  { name: 'dedot, both clients', script: 'dedot' },
  { name: '@substrate/txwrapper-polkadot', script: 'txwrapper' },
  { name: '@subsquid/substrate-processor', script: 'subsquid' },
  { name: 'command-line tools', script: 'command-line' },
];

const { values, positionals } = parseArgs({ options: { url: { type: 'string' } }, allowPositionals: true });
const node =
  values.url === undefined
    ? await startNodeProcess(['dev', '--no-worker', '--no-gateway', '--rpc-port', '0', '--state-pruning', 'archive'])
    : undefined;
const url = values.url ?? node.ws;
const proxy = await legacyProxy(url);

const run = ({ script, legacy }) =>
  new Promise((resolve) => {
    const args = [fileURLToPath(new URL(`scripts/${script}.mjs`, import.meta.url)), legacy ? proxy.url : url];
    const child = spawn(process.execPath, legacy ? [...args, `${script}-legacy`] : args, {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.once('close', (code) => {
      const summary = /^\{"checks":.*\}$/m.exec(output)?.[0];
      resolve({ ...(summary === undefined ? { checks: 0, failed: 1 } : JSON.parse(summary)), code, output });
    });
  });

let failed = 0;
const rows = [];
for (const each of SCRIPTS) {
  if (positionals.length > 0 && !positionals.includes(each.script)) continue;
  const started = performance.now();
  const result = await run(each);
  failed += result.failed;
  if (result.code !== 0) process.stdout.write(`${each.name}:\n${result.output}\n`);
  rows.push({
    client: each.name,
    checks: result.checks,
    failed: result.failed,
    seconds: Math.round((performance.now() - started) / 1_000),
  });
}
console.table(rows);
proxy.close();
if (node !== undefined) {
  const complaints = node
    .log()
    .split('\n')
    .filter((line) => /"level":[45]0/.test(line));
  if (complaints.length > 0) console.log(`the node complained:\n${complaints.slice(0, 20).join('\n')}`);
  await node.stop();
}
process.exitCode = failed === 0 ? 0 : 1;
