/**
 * `npm run fuzz:blocks`: random calls of all pallets by a few accounts and by root, in blocks with all hooks. Nothing
 * may throw, and the invariants hold after every block. `--seed` repeats a run; `--calls`.
 */
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ROOT, signed } from '../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../runtime/framework/runtime-call.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError, Source } from '../../runtime/primitives/scale/io.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { createWorld, genesisOf, OPEN, person } from '../runtime/pallets/world.ts';
import { encodingOf } from './inputs.ts';
import { INVARIANTS, type Invariant } from './invariants.ts';
import { assembly, outer } from './ledger.ts';
import { Random } from './random.ts';

const PEOPLE = Array.from({ length: 13 }, (_, i) => person(i + 1));
/** Calls that end the run rather than test it: root may write anything into the state. */
const EXCLUDED =
  /^(System\.(set_storage|kill_storage|kill_prefix|set_code|set_code_without_checks|apply_authorized_upgrade)|Balances\.force_set_balance)$/;

export interface Outcome {
  readonly calls: number;
  readonly succeeded: number;
  readonly blocks: number;
  /** Names of the calls that succeeded at least once. */
  readonly kinds: ReadonlySet<string>;
  /** What went wrong, with the call that did it. */
  readonly fault?: string;
}

/** Values that mean something to the ledger in place of most random ones: its accounts, small numbers, amounts. */
function meaningful(value: unknown, random: Random): unknown {
  if (value instanceof Uint8Array) return value.length === 32 && random.chance(0.8) ? random.pick(PEOPLE) : value;
  if (typeof value === 'number') return value > 10 && random.chance(0.8) ? random.below(8) : value;
  if (typeof value === 'bigint') return random.chance(0.8) ? BigInt(random.below(3_000)) * OPEN : value;
  if (ArrayBuffer.isView(value)) return value;
  if (Array.isArray(value)) return value.map((each) => meaningful(each, random));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, meaningful(each, random)]));
}

function randomCall(random: Random): RuntimeCall | undefined {
  try {
    const { type, value } = assembly.call.decodeFrom(new Source(encodingOf(assembly.call.type, random, outer)));
    const call = { type, value: { type: value.type, value: meaningful(value.value, random) } };
    // As an extrinsic would hold it.
    return assembly.call.decodeFrom(new Source(encode(assembly.call, call)));
  } catch (problem) {
    // A type with rules that its metadata does not tell.
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
}

const contains = (value: unknown): boolean => {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return false;
  const call = value as { type?: unknown; value?: { type?: unknown } };
  if (typeof call.type === 'string' && typeof call.value?.type === 'string') {
    if (EXCLUDED.test(`${call.type}.${call.value.type}`)) return true;
  }
  return Object.values(value).some(contains);
};

export async function runBlocks(
  seed: number,
  calls: number,
  invariants: readonly Invariant[] = INVARIANTS,
): Promise<Outcome> {
  const of = await createWorld(
    genesisOf({ balances: PEOPLE.map((account) => ({ account, amount: 100_000n * OPEN })), sudo: PEOPLE[0] }),
    asHash(new Uint8Array(32).fill(7)),
  );
  let [made, succeeded, blocks] = [0, 0, 0];
  const kinds = new Set<string>();
  let last = '';
  try {
    for (let i = 0; i < calls; i++) {
      const random = new Random(seed, 'blocks', i);
      const call = randomCall(random);
      if (call === undefined || contains(call)) continue;
      const origin = random.chance(0.15) ? ROOT : signed(random.pick(PEOPLE));
      last = `call ${i}: ${JSON.stringify(call, (_, each) => (each instanceof Uint8Array ? `[${each.length}]` : typeof each === 'bigint' ? String(each) : each)).slice(0, 600)}`;
      made++;
      const { outcome } = of.dispatch(call, origin);
      if (outcome.ok) {
        succeeded++;
        kinds.add(`${call.type}.${call.value.type}`);
      }
      if (!random.chance(0.05)) continue;
      of.finish();
      const events = of.events();
      for (const { name, check } of invariants) {
        const wrong = check(of, events);
        if (wrong !== undefined) throw new Error(`${name}: ${wrong}`);
      }
      of.next(of.number() + (random.chance(0.05) ? 150 : 1));
      blocks++;
    }
    return { calls: made, succeeded, blocks, kinds };
  } catch (problem) {
    const fault = `seed ${seed}, ${last}\n${problem instanceof Error ? problem.stack : String(problem)}`;
    return { calls: made, succeeded, blocks, kinds, fault };
  } finally {
    await of.close();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { seed: { type: 'string' }, calls: { type: 'string', default: '1000000' } },
  });
  const first = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
  // A world of its own for every so many calls: old ones are full of what failed.
  const share = 20_000;
  for (let done = 0, seed = first; done < Number(values.calls); done += share, seed++) {
    const outcome = await runBlocks(seed, Math.min(share, Number(values.calls) - done));
    const { calls, succeeded, blocks, kinds, fault } = outcome;
    process.stdout.write(
      `seed ${seed}: ${calls} calls, ${succeeded} of ${kinds.size} kinds succeeded, ${blocks} blocks\n`,
    );
    if (fault === undefined) continue;
    process.stdout.write(`${fault}\n`);
    process.exitCode = 1;
    return;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
