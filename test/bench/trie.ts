/**
 * What changing k of n accounts costs: nodes made, nodes read from the database and hashes taken for each changed account, which
 * no other program on the machine can disturb, and the time. Costs of O(k log n) grow by a fixed step from one n to ten times it.
 * `--largest 1000000`, `--changes 1000`
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createHashing } from '../../node/crypto/hashing.ts';
import { Database } from '../../node/database/database.ts';
import { StateDatabase } from '../../node/state/state-database.ts';
import { concatBytes, utf8 } from '../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { type Figure, report } from './support/report.ts';

const { values } = parseArgs({
  options: { largest: { type: 'string', default: '1000000' }, changes: { type: 'string', default: '1000' } },
});
const largest = Number(values.largest);
const changes = Number(values.changes);
const ROUNDS = 5;
/** Accounts that are added in one block. */
const STEP = 25_000;

const hashing = createHashing();
let hashes = 0;
const hash = (data: Uint8Array): Uint8Array => {
  hashes++;
  return hashing.blake2_256(data);
};
const prefix = concatBytes(hashing.twox128(utf8('System')), hashing.twox128(utf8('Account')));
function keyOf(index: number): Uint8Array {
  const account = hashing.blake2_256(utf8(`account ${index}`));
  return concatBytes(prefix, hashing.blake2_128(account), account);
}

interface Cost {
  readonly accounts: number;
  readonly made: number;
  readonly read: number;
  readonly hashed: number;
  readonly microseconds: number;
  readonly root: number;
}

async function measure(accounts: number, directory: string): Promise<Cost> {
  const database = await Database.open(directory);
  let reads = 0;
  const get = database.get.bind(database);
  database.get = (column, key) => {
    reads++;
    return get(column, key);
  };
  const states = await StateDatabase.open(database, hash, { pruning: 1 });
  let number = 0;
  let head: Hash | undefined;
  const block = async (change: (put: (index: number) => void) => void): Promise<number> => {
    const overlay = head === undefined ? states.empty() : states.overlay(head)!;
    change((index) => overlay.put(keyOf(index), randomBytes(80)));
    overlay.storageRoot(1);
    const batch = database.batch();
    const next = asHash(hashing.blake2_256(utf8(`block ${number}`)));
    const before = batch.size;
    const committed = states.insert(batch, { hash: next, number }, overlay);
    const made = batch.size - before;
    await batch.commit();
    committed();
    const canonical = (height: number) => asHash(hashing.blake2_256(utf8(`block ${height}`)));
    const pruning = database.batch();
    const pruned = states.finalize(pruning, [{ hash: next, number }], [], canonical);
    await pruning.commit();
    pruned();
    head = next;
    number++;
    return made;
  };
  for (let from = 0; from < accounts; from += STEP) {
    await block((put) => {
      for (let i = from; i < Math.min(from + STEP, accounts); i++) put(i);
    });
  }
  const total = { made: 0, read: 0, hashed: 0, microseconds: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const chosen = new Set<number>();
    while (chosen.size < changes) chosen.add(Math.floor(Math.random() * accounts));
    hashes = 0;
    reads = 0;
    const cpu = process.cpuUsage();
    total.made += await block((put) => {
      for (const index of chosen) put(index);
    });
    const { user, system } = process.cpuUsage(cpu);
    total.microseconds += user + system;
    total.read += reads;
    total.hashed += hashes;
  }
  await database.close();
  const per = (sum: number): number => sum / (ROUNDS * changes);
  return {
    accounts,
    made: per(total.made),
    read: per(total.read),
    hashed: per(total.hashed),
    microseconds: per(total.microseconds),
    root: Math.log(accounts) / Math.log(16),
  };
}

const costs: Cost[] = [];
for (let accounts = 10_000; accounts <= largest; accounts *= 10) {
  const directory = await mkdtemp(join(tmpdir(), 'trie-'));
  try {
    costs.push(await measure(accounts, directory));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
const figures: Figure[] = costs.flatMap(({ accounts, made, read, hashed, microseconds }) => {
  const of = `of ${accounts.toLocaleString('en')} accounts`;
  return [
    { what: `nodes made, ${of}`, value: made, unit: 'for each changed' },
    { what: `nodes read, ${of}`, value: read, unit: 'for each changed' },
    { what: `hashes, ${of}`, value: hashed, unit: 'for each changed' },
    { what: `processor time, ${of}`, value: microseconds, unit: 'µs for each changed' },
  ];
});
// The last thousand changes part at depth log16 k; below it each makes the nodes of a path of its own.
const [first, last] = [costs[0]!, costs.at(-1)!];
const steps = last.root - first.root;
if (steps > 0) {
  figures.push({
    what: 'nodes made more, for 16 times the accounts',
    value: (last.made - first.made) / steps,
    unit: 'for each changed',
    bar: ['<=', 1.5],
  });
}
await report('trie', figures, costs);
