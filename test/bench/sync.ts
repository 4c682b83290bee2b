/**
 * How fast a fresh node follows: a chain is made beforehand and served by a node in a process of its own; a second node in
 * this process fetches it over loopback and verifies all of it (seals, signatures, execution, roots, justifications).
 *
 * `--blocks 10000 --transactions 100000` (`0` transactions: nearly empty blocks) `--sync full|warp`.
 */
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { slotDigest, withSeal } from '../../consensus/aura/slots.ts';
import { buildJustification } from '../../consensus/grandpa/justification.ts';
import { blockId, idBytes, signingPayload, voterId } from '../../consensus/grandpa/messages.ts';
import { type Clock, systemClock } from '../../consensus/ports.ts';
import { Chain } from '../../node/chain.ts';
import type { ChainSpec } from '../../node/chain-spec/chain-spec.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures, SignatureCache } from '../../node/crypto/signatures.ts';
import { Verifier } from '../../node/crypto/verifier.ts';
import { Database } from '../../node/database/database.ts';
import { newRuntime } from '../../node/genesis.ts';
import { MemoryKeystore } from '../../node/keystore/memory.ts';
import type { BestFirst } from '../../node/pool/best-first.ts';
import { startNode } from '../../node/service.ts';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { type Header, headerHash } from '../../runtime/primitives/header.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { addressOf, loopback } from '../network/nodes.ts';
import { chainWith, publicKeys, signedTransfers } from './support/accounts.ts';
import { report } from './support/report.ts';

const SLOT_MS = 3_000;
const ACCOUNTS = 1_000;
const FINAL_EVERY = 32;
const quiet = (): void => {};

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

/** Extrinsics of a pool without a pool. */
function given(list: readonly Uint8Array[]): BestFirst {
  const hash = new Uint8Array(32) as Hash;
  let at = 0;
  return {
    next: () => (at < list.length ? { hash, extrinsic: list[at++] } : undefined),
    markInvalid() {},
  } as unknown as BestFirst;
}

/** Writes a chain of `//Alice` as if it had been running since long ago. */
async function makeChain(spec: ChainSpec, basePath: string, blocks: number, transactions: readonly Uint8Array[]) {
  const directory = join(basePath, 'chains', spec.id);
  await mkdir(directory, { recursive: true });
  const hashing = createHashing();
  const signatures = new SignatureCache(await createSignatures());
  const database = await Database.open(join(directory, 'db'));
  const verifier = new Verifier({ signatures, hashing });
  const start = Math.floor((Date.now() - blocks * SLOT_MS) / SLOT_MS);
  let slot = start;
  const clock: Clock = { ...systemClock, now: () => slot * SLOT_MS };
  const chain = await Chain.open(
    { database, runtime: newRuntime(), hashing, signatures, verifier, clock, log: quiet },
    { pruning: 256, genesis: spec.genesis },
  );
  const keystore = new MemoryKeystore(hashing);
  for (const type of ['aura', 'gran']) keystore.hold(type, '//Alice');
  const [author] = keystore.publicKeys('aura');
  const [voter] = keystore.publicKeys('gran');
  const each = Math.ceil(transactions.length / blocks);
  const signal = new AbortController().signal;
  for (let i = 0; i < blocks; i++) {
    slot++;
    const { best } = chain.blocks.info();
    const batch = transactions.slice(i * each, (i + 1) * each);
    await chain.preverify(batch);
    const { header, extrinsics } = await chain.propose(
      {
        parent: best,
        slot,
        preRuntime: slotDigest(slot),
        timestamp: slot * SLOT_MS,
        deadline: Number.POSITIVE_INFINITY,
        signal,
      },
      given(batch),
      () => {
        throw new Error('a transfer of the bench is not valid');
      },
    );
    const sealed = withSeal(header, keystore.sign('aura', author!, headerHash(hashing, header))!);
    const result = await chain.import({ header: sealed, extrinsics: [...extrinsics] }, { origin: 'sync' });
    if (result.type !== 'imported') throw new Error(`block ${i + 1}: ${JSON.stringify(result)}`);
    if (extrinsics.length !== batch.length + 1) throw new Error(`block ${i + 1} has ${extrinsics.length} extrinsics`);
    if ((i + 1) % FINAL_EVERY !== 0 && i + 1 < blocks) continue;
    const hash = headerHash(hashing, sealed);
    const target = { hash: blockId(hash), number: sealed.number };
    const signature = keystore.sign('gran', voter!, signingPayload('precommit', target, i + 1, 0))!;
    const precommit = { kind: 'precommit', target, voter: voterId(voter!), signature } as const;
    const headerOf = (id: Parameters<typeof idBytes>[0]): Header | undefined =>
      chain.blocks.header(idBytes(id) as Hash);
    await chain.importJustification(hash, buildJustification(i + 1, { target, precommits: [precommit] }, headerOf));
  }
  await verifier.close();
  await database.close();
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
