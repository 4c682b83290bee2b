/**
 * Runs every client's script against one fresh node, one after the other, and says what came of it. Words choose scripts by
 * name; `--url` takes a running development node with `--state-pruning archive`, `--jobs 3` runs so many at once. Beside them
 * runs a script that sends transactions of every kind, so that all have them to decode.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { chainSpecJson } from '../../node/chain-spec/chain-spec.ts';
import { startNodeProcess } from '../bench/support/node-process.ts';
import { legacyProxy } from './legacy-proxy.mjs';

/** A machine that is slow is no fault of the node. */
const SLOW = /took longer than its slot/;
const scriptPath = (name) => fileURLToPath(new URL(`scripts/${name}.mjs`, import.meta.url));

/** Blocks of a second: the last 100 of them are there after less than two minutes. */
const SLOT_MS = 1_000;
const SCRIPTS = [
  { name: '@polkadot/api', script: 'polkadot-js', funder: '//Alice' },
  { name: 'polkadot-api', script: 'papi', funder: '//Bob' },
  { name: 'polkadot-api, legacy', script: 'papi', funder: '//Charlie', legacy: true },
  { name: 'dedot, both clients', script: 'dedot', funder: '//Dave' },
  { name: '@substrate/txwrapper-polkadot', script: 'txwrapper', funder: '//Eve' },
  { name: '@subsquid/substrate-processor', script: 'subsquid', funder: '//Ferdie' },
  { name: 'smoldot, a peer', script: 'smoldot', funder: '//Alice' },
  { name: 'command-line tools', script: 'command-line', funder: '//Alice//stash' },
];

const { values, positionals } = parseArgs({
  options: { url: { type: 'string' }, jobs: { type: 'string', default: '1' } },
  allowPositionals: true,
});
const directory = await mkdtemp(join(tmpdir(), 'clients-'));

async function start() {
  const spec = join(directory, 'spec.json');
  await writeFile(spec, chainSpecJson(presetSpec('dev', { slotDurationMs: SLOT_MS })));
  process.env.OPENLEDGER_AUDIT_BOOKS = '1';
  const flags = ['--alice', '--tmp', '--port', '0', '--no-mdns', '--rpc-port', '0', '--state-pruning', 'archive'];
  return startNodeProcess(['node', '--chain', spec, ...flags]);
}

const node = values.url === undefined ? await start() : undefined;
const url = values.url ?? node.ws;
const proxy = await legacyProxy(url);

const run = ({ script, legacy, funder }) =>
  new Promise((resolve) => {
    const started = performance.now();
    const args = [scriptPath(script), legacy ? proxy.url : url];
    const child = spawn(process.execPath, legacy ? [...args, `${script}-legacy`] : args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, FUNDER: funder, NODE_URL: url },
    });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    // Not its output's end: what a tool has started may hold that open.
    child.once('exit', async (code) => {
      await new Promise((done) => setTimeout(done, 500));
      const summary = /^\{"checks":.*\}$/m.exec(output)?.[0];
      const seconds = Math.round((performance.now() - started) / 1_000);
      const counts = summary === undefined ? { checks: 0, failed: 1 } : JSON.parse(summary);
      console.log(`${script}${legacy ? ', legacy' : ''}: ${counts.failed} of ${counts.checks} failed, ${seconds} s`);
      resolve({ ...counts, code, output, seconds });
    });
  });

const chosen = SCRIPTS.filter(({ script }) => positionals.length === 0 || positionals.includes(script));
const traffic = spawn(process.execPath, [scriptPath('traffic'), url], {
  stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  env: { ...process.env, FUNDER: '//Bob//stash', NODE_URL: url },
});
// With its channel ended from here, it never counts as closed.
const trafficEnded = new Promise((resolve) => traffic.once('exit', resolve));
const results = new Map();
const waiting = [...chosen];
await Promise.all(
  Array.from({ length: Number(values.jobs) }, async () => {
    for (let each = waiting.shift(); each !== undefined; each = waiting.shift()) results.set(each, await run(each));
  }),
);
if (traffic.connected) traffic.disconnect();
const patience = setTimeout(() => traffic.kill(), 60_000);
await trafficEnded;
clearTimeout(patience);
const trafficFailed = traffic.exitCode !== 0;
let failed = trafficFailed ? 1 : 0;
if (trafficFailed) console.log('the script that sends transactions of every kind failed');
const rows = chosen.map((each) => {
  const { name } = each;
  const result = results.get(each);
  failed += result.code === 0 ? 0 : Math.max(1, result.failed);
  if (result.code !== 0) process.stdout.write(`${name}:\n${result.output}\n`);
  return { client: name, checks: result.checks, failed: result.failed, seconds: result.seconds };
});
console.table(rows);
proxy.close();
if (node !== undefined) {
  const complaints = node
    .log()
    .split('\n')
    .filter((line) => /"level":[456]0/.test(line) && !SLOW.test(line));
  if (complaints.length > 0) {
    console.log(`the node complained:\n${complaints.slice(0, 20).join('\n')}`);
    failed++;
  }
  await node.stop();
}
await rm(directory, { recursive: true, force: true });
process.exitCode = failed === 0 ? 0 : 1;
