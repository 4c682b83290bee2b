/**
 * `npm run fuzz:weights`: does weight tell the truth? Transactions at the limits of every call, and random ones of all
 * calls, are applied; what they took of the processor is held against what the block was charged for them. A ratio
 * above 2 is a fault. The processor is measured by a loop of fixed work first and between the cases, so that a slow or
 * busy machine does not blame the runtime. `--seed`, `--random` (calls), `--case` (part of a name).
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { RuntimeCall } from '../../runtime/framework/runtime-call.ts';
import * as system from '../../runtime/pallets/standard/system.ts';
import { ScaleError, Source } from '../../runtime/primitives/scale/io.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { accountOf, signedBy } from '../runtime/executive/signing.ts';
import { createWorld, genesisOf, OPEN, person, type World } from '../runtime/pallets/world.ts';
import { encodingOf } from './inputs.ts';
import { assembly, outer } from './ledger.ts';
import { Random } from './random.ts';
import { WEIGHT_CASES, type WeightCase } from './weight-cases.ts';

/** Milliseconds that {@link reference} takes on the machine that weights are written for. */
const REFERENCE_MS = 40;
const MOST = 2;
/** Below this, the clock and the garbage collector say more than the call. */
const LEAST_MS = 0.5;
/** The same for random calls, of which each runs only a few times: most of what they take is compiling. */
const LEAST_COLD_MS = 5;

export interface Finding {
  readonly name: string;
  readonly charged: number;
  readonly took: number;
  readonly ratio: number;
  readonly cold?: true;
}

const cpuMs = (body: () => void): number => {
  const start = process.cpuUsage();
  body();
  const { user, system: kernel } = process.cpuUsage(start);
  return (user + kernel) / 1_000;
};

/** Work of the runtime's own kind: maps of byte keys, bigints, small arrays. */
function reference(): number {
  const map = new Map<string, bigint>();
  let sum = 0n;
  for (let i = 0; i < 60_000; i++) {
    const key = String.fromCharCode(i & 255, (i >> 8) & 255, 7) + i;
    map.set(key, BigInt(i));
    sum += (map.get(key) ?? 0n) * 3n;
    if (new Uint8Array(64).fill(i)[3] === 300) sum++;
  }
  return Number(sum & 1n);
}

/** How many times slower this machine is now than the one that weights are written for. */
function slowness(): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5; i++)
    best = Math.min(
      best,
      cpuMs(() => reference()),
    );
  return best / REFERENCE_MS;
}

async function freshWorld(): Promise<World> {
  const people = [accountOf('Alice'), accountOf('Bob'), person(200)];
  const of = await createWorld(
    genesisOf({
      balances: people.map((account) => ({ account, amount: 10n ** 9n * OPEN })),
      sudo: accountOf('Alice'),
    }),
    asHash(new Uint8Array(32).fill(7)),
  );
  // Signatures are checked on other threads before: here they hold.
  of.host.verifySr25519 = () => true;
  return of;
}

const total = (of: World): bigint => system.totalConsumed(system.consumed(of.host)).refTime;

/** What one call is charged and takes: the best of several rounds, since pauses only ever add. Undefined where it is refused. */
function measure(of: World, name: string, rounds: number, call: (round: number) => RuntimeCall): Finding | undefined {
  let best: Finding | undefined;
  let spent = 0;
  for (let round = 0; round < rounds && (round < 4 || spent < 400); round++) {
    of.next();
    const bytes = signedBy(of, 'Alice', call(round), { forge: true });
    const before = total(of);
    let ok = false;
    const took = cpuMs(() => {
      ok = of.runtime.executive.applyExtrinsic(of.host, bytes).ok;
    });
    if (!ok) return undefined;
    spent += took;
    const charged = Number(total(of) - before) / 1e9;
    if (best === undefined || took / charged < best.ratio) best = { name, charged, took, ratio: took / charged };
  }
  return best;
}

export async function runCase(each: WeightCase, rounds = 40): Promise<Finding | undefined> {
  const of = await freshWorld();
  try {
    each.prepare?.(of);
    const found = measure(of, each.name, rounds, (round) => each.call(of, round));
    return found && corrected(found);
  } finally {
    await of.close();
  }
}

const corrected = ({ took, charged, ...rest }: Finding): Finding => {
  const there = took / slowness();
  return { ...rest, charged, took: there, ratio: there / charged };
};

export const isFault = ({ ratio, took, cold }: Finding): boolean =>
  took > (cold ? LEAST_COLD_MS : LEAST_MS) && ratio > MOST;

/** Undefined where a type has rules that its metadata does not tell. */
function randomCall(random: Random): RuntimeCall | undefined {
  try {
    return assembly.call.decodeFrom(new Source(encodingOf(assembly.call.type, random, outer)));
  } catch (problem) {
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
}

/** Random calls of all pallets, each several times: the worst ratio of each call. */
export async function runRandom(seed: number, count: number): Promise<Finding[]> {
  const of = await freshWorld();
  const worst = new Map<string, Finding>();
  try {
    for (let i = 0; i < count; i++) {
      const call = randomCall(new Random(seed, 'weights', i));
      if (call === undefined) continue;
      const found = measure(of, `${call.type}.${call.value.type}`, 6, () => call);
      const before = found && worst.get(found.name);
      if (found !== undefined && (before === undefined || before.ratio < found.ratio)) worst.set(found.name, found);
    }
  } finally {
    await of.close();
  }
  const slow = slowness();
  return [...worst.values()].map((each) => ({
    ...each,
    cold: true,
    took: each.took / slow,
    ratio: each.ratio / slow,
  }));
}

/** Faults twice in a row: a pause of the machine is not the runtime's. */
export async function check(each: WeightCase, rounds?: number): Promise<Finding | undefined> {
  const first = await runCase(each, rounds);
  return first === undefined || !isFault(first) ? first : await runCase(each);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      random: { type: 'string', default: '200000' },
      case: { type: 'string', default: '' },
    },
  });
  const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
  process.stdout.write(`seed ${seed}; this machine takes ${slowness().toFixed(2)} times as long\n`);
  const found: Finding[] = [];
  for (const each of WEIGHT_CASES.filter(({ name }) => name.includes(values.case))) {
    const finding = await check(each);
    if (finding === undefined) throw new Error(`${each.name}: the transaction is refused`);
    found.push(finding);
  }
  if (values.case === '') for (const each of await runRandom(seed, Number(values.random))) found.push(each);
  console.table(
    found
      .sort((a, b) => b.ratio - a.ratio)
      .map((each) => ({
        name: each.name,
        'charged ms': each.charged.toFixed(2),
        'took ms': each.took.toFixed(2),
        ratio: each.ratio.toFixed(2),
        fault: isFault(each) ? 'YES' : '',
      })),
  );
  process.exitCode = found.some(isFault) ? 1 : 0;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
