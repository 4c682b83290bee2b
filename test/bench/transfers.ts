/**
 * How many signed transfers a second one node takes in, executes and finalizes, with its client on the same machine: signed
 * beforehand (sr25519, immortal, one after the other for each account), sent by `author_submitExtrinsic` over WebSocket to
 * a node in a process of its own, on the development chain with more accounts and its limits as they are.
 *
 * `--seconds 60 --accounts 10000 --rate 4500 --profile DIR` (`--rate`: how many a second are prepared).
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chainSpecJson } from '../../node/chain-spec/chain-spec.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { accountInfo } from '../../runtime/pallets/standard/system.ts';
import { fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { decode, u128 } from '../../runtime/primitives/scale/codec.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import { chainWith, publicKeys, signedTransfers } from './support/accounts.ts';
import { startNodeProcess } from './support/node-process.ts';
import { report } from './support/report.ts';
import { RpcClient, RpcFailure } from './support/rpc-client.ts';

interface HeaderJson {
  readonly number: string;
}
interface BlockJson {
  readonly block: { readonly extrinsics: readonly string[]; readonly header: HeaderJson };
}

const CONNECTIONS = 4;
/** Calls without an answer on one connection. */
const IN_FLIGHT = 128;
/** Transfers that are sent and not yet in a block: enough for the next block, not so many that the pool is full. */
const MAX_WAITING = 30_000;

/** Format, pallet and call of an inherent. */
const INHERENT_HEADER = 3;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    accounts: { type: 'string', default: '10000' },
    rate: { type: 'string', default: '4500' },
    profile: { type: 'string' },
  },
});
const seconds = Number(values.seconds);
const accounts = Number(values.accounts);
const perAccount = Math.ceil((Number(values.rate) * seconds) / accounts) + 1;

/** What the timestamp inherent, the first extrinsic of every block, says. */
const momentOf = (extrinsic: string): number => {
  const source = new Source(fromHex(extrinsic));
  source.compact(0xffffffff);
  source.bytes(INHERENT_HEADER);
  return Number(source.compactBig(2n ** 64n - 1n));
};

const directory = await mkdtemp(join(tmpdir(), 'transfers-'));
const file = join(directory, 'chain.json');
await writeFile(file, chainSpecJson(chainWith(await publicKeys(accounts))));
const profile = values.profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${values.profile}`];
const node = await startNodeProcess(
  [
    'node',
    '--chain',
    file,
    '--base-path',
    join(directory, 'node'),
    '--alice',
    '--no-prometheus',
    '--port',
    '0',
    '--rpc-port',
    '0',
  ],
  profile,
);

/** Transfers in each block that became final, by its number, and when we heard of it. */
const blocks = new Map<number, { readonly transfers: number; readonly at: number; readonly slotMs: number }>();
const refused = new Map<string, number>();
try {
  const observer = await RpcClient.connect(node.ws);
  const genesisHash = fromHex(await observer.call<string>('chain_getBlockHash', 0));
  const version = await observer.call<{ specVersion: number; transactionVersion: number }>('state_getRuntimeVersion');
  console.log(`signing ${accounts * perAccount} transfers`);
  const extrinsics = await signedTransfers({
    accounts,
    firstNonce: 0,
    perAccount,
    genesisHash,
    ...version,
    amount: 10n ** 12n,
  });

  let included = 0;
  let lastFinal = 0;
  const readUpTo = async (last: number): Promise<void> => {
    while (lastFinal < last) {
      const number = ++lastFinal;
      const hash = await observer.call<string>('chain_getBlockHash', number);
      const { block } = await observer.call<BlockJson>('chain_getBlock', hash);
      const transfers = block.extrinsics.length - 1;
      included += transfers;
      blocks.set(number, { transfers, at: performance.now(), slotMs: momentOf(block.extrinsics[0]!) });
    }
  };
  let reading: Promise<void> = Promise.resolve();
  await observer.subscribe<HeaderJson>('chain_subscribeFinalizedHeads', [], (head) => {
    reading = reading.then(() => readUpTo(Number(head.number)));
  });

  const cpuBefore = { node: node.cpuMs(), client: process.cpuUsage() };
  const start = performance.now();
  const end = start + seconds * 1_000;
  let next = 0;
  let accepted = 0;
  const senders = await Promise.all(Array.from({ length: CONNECTIONS }, () => RpcClient.connect(node.ws)));
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  const send = async (client: RpcClient): Promise<void> => {
    while (performance.now() < end && next < extrinsics.length) {
      if (accepted - included > MAX_WAITING) {
        await pause(20);
        continue;
      }
      try {
        await client.call('author_submitExtrinsic', extrinsics[next++]!);
        accepted++;
      } catch (problem) {
        if (!(problem instanceof RpcFailure)) throw problem;
        refused.set(problem.message, (refused.get(problem.message) ?? 0) + 1);
      }
    }
  };
  await Promise.all(senders.flatMap((client) => Array.from({ length: IN_FLIGHT }, () => send(client))));
  const sentAt = performance.now();
  const memory = node.memory();
  console.log(`sent ${accepted} in ${((sentAt - start) / 1_000).toFixed(1)} s`);
  const deadline = sentAt + 30_000;
  while (included < accepted && performance.now() < deadline) {
    await pause(100);
    await reading;
  }
  const finalAt = performance.now();
  const { user, system } = process.cpuUsage(cpuBefore.client);
  const cpu = { node: (node.cpuMs() - cpuBefore.node) * 1e3, client: user + system };

  // By the clock of the chain itself, so that it does not count when a client hears of a block: a block's transfers belong to
  // the time since the block before it. The first block that holds some was begun before they flowed.
  const flowing = [...blocks].filter(([, { transfers, at }]) => transfers > 0 && at <= end);
  const [first, last] = [flowing[0]![1], flowing.at(-1)![1]];
  const counted = flowing.slice(1).reduce((sum, [, { transfers }]) => sum + transfers, 0);
  const sustained = counted / ((last.slotMs - first.slotMs) / 1_000);

  const keys = await publicKeys(accounts);
  const hashing = createHashing();
  const prefix = Buffer.concat([hashing.twox128(utf8('System')), hashing.twox128(utf8('Account'))]);
  let nonces = 0;
  for (let i = 0; i < keys.length; i += 500) {
    const wanted = keys.slice(i, i + 500).map((key) => toHex(Buffer.concat([prefix, hashing.blake2_128(key), key])));
    const [set] = await observer.call<{ changes: [string, string][] }[]>('state_queryStorageAt', wanted);
    for (const [, value] of set!.changes) nonces += decode(accountInfo, fromHex(value)).nonce;
  }
  const issuanceKey = Buffer.concat([hashing.twox128(utf8('Balances')), hashing.twox128(utf8('TotalIssuance'))]);
  const issuance = decode(u128, fromHex(await observer.call<string>('state_getStorage', toHex(issuanceKey))));
  let held = 0n;
  for (let from: string | undefined; ; ) {
    const page: string[] = await observer.call('state_getKeysPaged', toHex(prefix), 1000, from);
    if (page.length === 0) break;
    const [set] = await observer.call<{ changes: [string, string][] }[]>('state_queryStorageAt', page);
    for (const [, value] of set!.changes) {
      const { free, reserved } = decode(accountInfo, fromHex(value)).data;
      held += free + reserved;
    }
    from = page.at(-1)!;
  }

  const perTransfer = (cpu.node + cpu.client) / included;
  await report(
    'transfers',
    [
      { what: 'sustained, by the slots of the blocks', value: sustained, unit: '/s', bar: ['>=', 2_000] },
      { what: 'from the first sent to the last final', value: (1e3 * included) / (finalAt - start), unit: '/s' },
      { what: "the node's processor time", value: cpu.node / included, unit: 'µs a transfer' },
      { what: "its client's", value: cpu.client / included, unit: 'µs a transfer' },
      { what: 'with two cores to themselves, at most', value: 2e6 / perTransfer, unit: '/s', bar: ['>=', 2_000] },
      {
        what: 'largest block',
        value: Math.max(...[...blocks.values()].map((each) => each.transfers)),
        unit: 'transfers',
      },
      { what: 'memory when the last was sent', value: memory / 1e6, unit: 'MB' },
    ],
    {
      accounts,
      seconds,
      accepted,
      refused: Object.fromEntries(refused),
      finalized: included,
      blocks: [...blocks].map(([number, { transfers, at }]) => [number, transfers, Math.round(at - start)]),
      nonceSumEqualsIncluded: nonces === included,
      issuanceEqualsBalances: held === issuance,
    },
  );
  if (nonces !== included || held !== issuance) process.exitCode = 1;
  for (const client of [observer, ...senders]) client.close();
} finally {
  await node.stop();
  const complaints = node
    .log()
    .split('\n')
    .filter((line) => /"level":[45]0/.test(line));
  if (complaints.length > 0) console.log(complaints.slice(0, 10).join('\n'));
  await rm(directory, { recursive: true, force: true });
}
