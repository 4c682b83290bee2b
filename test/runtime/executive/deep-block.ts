/**
 * Run by `stack.test.ts` with little stack: a block of transactions that nest as deep as they may, through every call
 * that takes a call. Prints outcomes and state root, so that runs with
 * other stacks can be compared.
 */

import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { asHash } from '../../../runtime/primitives/types.ts';
import { createWorld, genesisOf, make, OPEN, person, remark, to } from '../pallets/world.ts';
import { accountOf, signedBy } from './signing.ts';

const DEPTH = 32;
const world = await createWorld(
  genesisOf({
    balances: ['Alice', 'Bob'].map((name) => ({ account: accountOf(name), amount: 100_000n * OPEN })),
    sudo: accountOf('Alice'),
  }),
  asHash(new Uint8Array(32).fill(7)),
);
const [alice, bob] = [accountOf('Alice'), accountOf('Bob')];
for (const [from, by] of [
  [alice, bob],
  [bob, alice],
] as const) {
  world.dispatch(make('Proxy', 'add_proxy', { delegate: to(by), proxyType: { type: 'Any' }, delay: 0 }), from);
}
const weight = { refTime: 10n ** 9n, proofSize: 0n };
const root = { type: 'system', value: { type: 'Root' } };
const other = person(255);
const wrappers: Record<string, (inner: RuntimeCall, level: number) => RuntimeCall> = {
  batch: (inner) => make('Utility', 'batch', { calls: [inner] }),
  force_batch: (inner) => make('Utility', 'force_batch', { calls: [inner] }),
  as_derivative: (call) => make('Utility', 'as_derivative', { index: 1, call }),
  if_else: (main) => make('Utility', 'if_else', { main, fallback: remark() }),
  dispatch_as: (call) => make('Utility', 'dispatch_as', { asOrigin: root, call }),
  with_weight: (call) => make('Utility', 'with_weight', { call, weight }),
  threshold_1: (call) => make('Multisig', 'as_multi_threshold_1', { otherSignatories: [other], call }),
  // Each level acts for the other account, so that every level really runs.
  proxy: (call, level) =>
    make('Proxy', 'proxy', { real: to(level % 2 === 1 ? bob : alice), forceProxyType: undefined, call }),
  sudo: (call) => make('Sudo', 'sudo', { call }),
  sudo_as: (call) => make('Sudo', 'sudo_as', { who: to(alice), call }),
};
const chosen = Object.values(wrappers);
const nested = (wrap: (inner: RuntimeCall, level: number) => RuntimeCall): RuntimeCall => {
  let call = remark();
  for (let level = DEPTH; level >= 1; level--) call = wrap(call, level);
  return call;
};
const calls = [...chosen.map(nested), nested((inner, level) => chosen[level % chosen.length]!(inner, level))];
const outcomes: string[] = [];
for (const call of calls) {
  const bytes = signedBy(world, 'Alice', call);
  const valid = world.runtime.executive.validateNext(world.host, 'External', bytes);
  const applied = world.runtime.executive.applyExtrinsic(world.host, bytes);
  if (!valid.ok || !applied.ok) throw new Error(`refused: ${JSON.stringify({ valid, applied }, (_, v) => String(v))}`);
  outcomes.push(applied.outcome.ok ? 'ok' : applied.outcome.error.type);
}
const header = world.finish()!;
process.stdout.write(`${outcomes.join()} ${toHex(header.stateRoot)}\n`);
await world.close();
