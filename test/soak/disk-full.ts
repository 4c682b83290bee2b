/**
 * `npm run soak:disk -- DIR`: fills the disk under a running node. DIR is an empty directory on a small file system of its own (`mount
 * -t tmpfs -o size=48m tmpfs DIR`). The node has to say so and end; with room again it has to go on where it was.
 */
import { rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { chainSpecJson } from '../../node/chain-spec/chain-spec.ts';
import { spawnNode } from '../bench/support/node-process.ts';
import { inspect } from './support/consistency.ts';

const [directory] = process.argv.slice(2);
if (directory === undefined) throw new Error('which directory?');
const MOST = 1024 ** 3;
const spec = presetSpec('dev', { slotDurationMs: 300 });
const chain = join(directory, 'chain.json');
const filler = join(directory, 'filler');
await writeFile(chain, chainSpecJson(spec));
const args = ['node', '--chain', chain, '--alice', '--base-path', directory, '--rpc-port', '0'];
const alone = [...args, '--listen-addr', '/ip4/127.0.0.1/tcp/0', '--no-mdns', '--no-prometheus'];
const database = join(directory, 'chains', spec.id, 'db');

const running = spawnNode(alone);
const node = await running.ready;
await pause(3_000);
const { bavail, bsize } = await statfs(directory);
if (bavail * bsize > MOST) throw new Error(`${directory} is not on a small file system`);
try {
  await writeFile(filler, new Uint8Array(bavail * bsize));
} catch (problem) {
  // The node writes as well: either of the two gets the last bytes.
  if ((problem as NodeJS.ErrnoException).code !== 'ENOSPC') throw problem;
}
await running.ended;
const told = /the disk with the database at .* is full \(DISK_FULL\)/.test(node.log());
if (!told || node.child.exitCode !== 1) throw new Error(`it ended with ${node.child.exitCode}:\n${node.log()}`);
await rm(filler);
const before = await inspect(database);

const again = spawnNode(alone);
const back = await again.ready;
await pause(3_000);
await back.stop();
const after = await inspect(database);
if (before === undefined || after === undefined || after.finalized <= before.finalized) {
  throw new Error(`it did not go on: ${before?.finalized}, then ${after?.finalized}`);
}
for (let height = 0; height <= before.finalized; height++) {
  if (before.chain.get(height) !== after.chain.get(height)) throw new Error(`final block ${height} is another one`);
}
console.log(`stopped at final block ${before.finalized} with DISK_FULL, went on to ${after.finalized}`);
