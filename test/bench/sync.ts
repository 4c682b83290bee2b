/**
 * How fast a fresh node follows: a chain is made beforehand and served by a node in a process of its own; a second node in
 * this process fetches it over loopback and verifies all of it (seals, signatures, execution, roots, justifications).
 *
 * `--blocks 10000 --transactions 100000` (`0` transactions: nearly empty blocks) `--sync full|warp`.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { ChainSpec } from '../../node/chain-spec/chain-spec.ts';
import { systemClock } from '../../node/ports/machine.ts';
import { startNode } from '../../node/service.ts';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import { addressOf, loopback } from '../network/nodes.ts';
import { openChain } from '../support/own-chain.ts';
import { chainWith, publicKeys, signedTransfers } from './support/accounts.ts';
import { report } from './support/report.ts';

const SLOT_MS = 3_000;
const ACCOUNTS = 1_000;
const FINAL_EVERY = 32;

const { values } = parseArgs({
  options: {
    blocks: { type: 'string', default: '10000' },
    transactions: { type: 'string', default: '100000' },
    sync: { type: 'string', default: 'full' },
    serve: { type: 'string' },
  },
});

async function nodeOf(spec: ChainSpec, basePath: string, bootNodes: readonly string[], sync: 'full' | 'warp') {
  const stop = new AbortController();
  const node = await startNode(
    {
      name: 'bench',
      version: '0',
      spec,
      basePath,
      statePruning: 256,
      authority: undefined,
      rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
      network: loopback(bootNodes, sync),
      log: (level, message) => {
        if (message.includes('sync')) console.error(`${level} ${message}`);
      },
    },
    stop.signal,
  );
  return {
    node,
    stop: async (): Promise<void> => {
      stop.abort();
      await node.stopped;
    },
  };
}

/** Writes a chain of `//Alice` as if it had been running since long ago. */
async function makeChain(spec: ChainSpec, basePath: string, blocks: number, transactions: readonly Uint8Array[]) {
  let slot = Math.floor((Date.now() - blocks * SLOT_MS) / SLOT_MS);
  const { chain, propose, justify, close } = await openChain(spec, basePath, {
    ...systemClock,
    now: () => slot * SLOT_MS,
  });
  const each = Math.ceil(transactions.length / blocks);
  for (let i = 0; i < blocks; i++) {
    slot++;
    const block = await propose(slot, transactions.slice(i * each, (i + 1) * each));
    const result = await chain.import(block, { origin: 'sync' });
    if (result.type !== 'imported') throw new Error(`block ${i + 1}: ${JSON.stringify(result)}`);
    if ((i + 1) % FINAL_EVERY !== 0 && i + 1 < blocks) continue;
    const { best } = chain.blocks.info();
    const [proof] = justify(block.header, i + 1);
    await chain.importJustification(best.hash, proof![1]);
  }
  await close();
}

/** The bytes of an extrinsic without their length. */
function bare(extrinsic: string): Uint8Array {
  const source = new Source(fromHex(extrinsic));
  source.compact(0xffffffff);
  return source.bytes(source.remaining);
}

async function main(): Promise<void> {
  const spec = chainWith(await publicKeys(ACCOUNTS), SLOT_MS);
  if (values.serve !== undefined) {
    const { node, stop } = await nodeOf(spec, values.serve, [], 'full');
    console.log(addressOf(node));
    process.stdin.resume().once('end', () => void stop());
    return;
  }
  const blocks = Number(values.blocks);
  const sync = values.sync === 'warp' ? 'warp' : 'full';
  const root = await mkdtemp(join(tmpdir(), 'sync-'));
  try {
    const empty = join(root, 'genesis');
    const { node: first, stop: end } = await nodeOf(spec, empty, [], 'full');
    const { genesisHash } = first.client.blocks.info();
    const { specVersion, transactionVersion } = first.client.runtime.version(genesisHash);
    await end();
    const perAccount = Math.ceil(Number(values.transactions) / ACCOUNTS);
    const job = {
      accounts: ACCOUNTS,
      firstNonce: 0,
      perAccount,
      genesisHash,
      specVersion,
      transactionVersion,
      amount: 1n,
    };
    const transfers = (perAccount === 0 ? [] : await signedTransfers(job)).map(bare);
    const served = join(root, 'served');
    const began = performance.now();
    await makeChain(spec, served, blocks, transfers);
    const madeMs = performance.now() - began;

    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), '--serve', served], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    try {
      const address = await new Promise<string>((resolve, reject) => {
        createInterface(child.stdout).once('line', resolve);
        child.once('exit', () => reject(new Error('the serving node ended')));
      });
      const from = performance.now();
      const cpu = process.cpuUsage();
      const { node, stop } = await nodeOf(spec, join(root, 'fresh'), [address], sync);
      const { blocks: chain } = node.client;
      while (chain.info().best.number < blocks) await new Promise((resolve) => setTimeout(resolve, 20));
      const seconds = (performance.now() - from) / 1_000;
      const used = process.cpuUsage(cpu);
      while (chain.info().finalized.number < blocks) await new Promise((resolve) => setTimeout(resolve, 20));
      const bars = sync === 'full' && transfers.length === 0 ? { blocks: ['>=', 400] as const } : undefined;
      await report(`sync-${sync}-${blocks}-${transfers.length}`, [
        { what: `blocks, ${sync} sync`, value: blocks / seconds, unit: '/s', ...(bars && { bar: bars.blocks }) },
        {
          what: 'transfers',
          value: transfers.length / seconds,
          unit: '/s',
          ...(sync === 'full' && transfers.length > 0 && { bar: ['>=', 3_000] as const }),
        },
        { what: 'time', value: seconds, unit: 's' },
        { what: 'processor time of this process', value: (used.user + used.system) / 1e6, unit: 's' },
        { what: 'making the chain', value: madeMs / 1_000, unit: 's' },
      ]);
      await stop();
    } finally {
      child.stdin.end();
      await new Promise((resolve) => child.once('exit', resolve));
    }
  } finally {
    await rm(root, { recursive: true, force: true });
  }
}

await main();
