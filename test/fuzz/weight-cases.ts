/**
 * Calls at their limits, for the weight fuzzer: each says what it takes to get there. A pallet's owner adds the worst
 * states and arguments of its calls here; what a call announces must hold in every one of them.
 */
import type { RuntimeCall } from '../../runtime/framework/runtime-call.ts';
import { multisigAccount } from '../../runtime/pallets/standard/multisig.ts';
import { asAccountId } from '../../runtime/primitives/types.ts';
import { accountOf } from '../runtime/executive/signing.ts';
import { make, OPEN, person, to, type World } from '../runtime/pallets/world.ts';

export interface WeightCase {
  readonly name: string;
  /** Brings the state to where the call is dearest. */
  prepare?(of: World): void;
  /** The `round`-th of several such calls, by Alice, who is sudo too. */
  call(of: World, round: number): RuntimeCall;
}

const remark = (bytes = 0): RuntimeCall => make('System', 'remark', { remark: new Uint8Array(bytes) });
const many = (count: number, one: (index: number) => RuntimeCall): RuntimeCall[] =>
  Array.from({ length: count }, (_, index) => one(index));
const batch = (calls: readonly RuntimeCall[]): RuntimeCall => make('Utility', 'batch', { calls });
const forceBatch = (calls: readonly RuntimeCall[]): RuntimeCall => make('Utility', 'force_batch', { calls });
const nest = (depth: number, inner: RuntimeCall, wrap: (inner: RuntimeCall) => RuntimeCall): RuntimeCall => {
  let call = inner;
  for (let level = 0; level < depth; level++) call = wrap(call);
  return call;
};
const somebody = (of: World, seed: number) =>
  asAccountId(of.hashing.blake2_256(Uint8Array.of(seed, seed >> 8, seed >> 16)));
const must = (of: World, call: RuntimeCall, by: Parameters<World['dispatch']>[1]): void => {
  const { error } = of.dispatch(call, by);
  if (error !== undefined) throw new Error(`${call.type}.${call.value.type}: ${error}`);
};
const alice = accountOf('Alice');
const others = Array.from({ length: 99 }, (_, i) => person(150 + i));
const NO_WEIGHT = { refTime: 0n, proofSize: 0n };
const asMulti = (call: RuntimeCall): RuntimeCall =>
  make('Multisig', 'as_multi', {
    threshold: 2,
    otherSignatories: others,
    maybeTimepoint: undefined,
    call,
    maxWeight: NO_WEIGHT,
  });
const threshold1 = (call: RuntimeCall): RuntimeCall =>
  make('Multisig', 'as_multi_threshold_1', { otherSignatories: [person(255)], call });

export const WEIGHT_CASES: readonly WeightCase[] = [
  { name: 'a remark of 3.6 MB', call: () => remark(3_600_000) },
  {
    name: 'a remark of 3.6 MB with its event',
    call: () => make('System', 'remark_with_event', { remark: new Uint8Array(3_600_000) }),
  },
  { name: 'a batch of 4,096 remarks', call: () => batch(many(4_096, () => remark())) },
  {
    name: 'a batch of 64 batches of 62 remarks',
    call: () => batch(many(64, () => batch(many(62, () => remark())))),
  },
  {
    name: '4,096 calls that fail',
    call: () => forceBatch(many(4_096, () => make('Sudo', 'remove_key'))),
    prepare: (of) => must(of, make('Sudo', 'set_key', { new: to(person(9)) }), alice),
  },
  {
    name: '2,000 new accounts',
    call: (of, round) =>
      batch(
        many(2_000, (index) =>
          make('Balances', 'transfer_keep_alive', { dest: to(somebody(of, round * 4_096 + index)), value: OPEN }),
        ),
      ),
  },
  { name: 'threshold 1 on 32 levels around 200 kB', call: () => nest(32, remark(200_000), threshold1) },
  {
    name: 'threshold 1 on 31 levels around 4,000 calls',
    call: () => nest(31, batch(many(4_000, () => remark())), threshold1),
  },
  { name: 'a multisig of 100 around 3.6 MB', call: (_, round) => asMulti(remark(3_600_000 + round)) },
  {
    name: 'a multisig of 4,095 calls that are not run',
    call: (_, round) => asMulti(batch([...many(4_094, () => remark()), remark(round)])),
  },
  {
    name: 'a multisig that nobody weighs, within threshold 1 on 30 levels',
    call: (_, round) => nest(30, asMulti(batch([...many(4_000, () => remark()), remark(round)])), threshold1),
    prepare(of) {
      let who = alice;
      for (let level = 0; level < 30; level++) {
        who = multisigAccount(
          of.hashing,
          [who, person(255)].sort((a, b) => Buffer.compare(a, b)),
          1,
        );
      }
      must(of, make('Balances', 'transfer_keep_alive', { dest: to(who), value: 100n * OPEN }), alice);
    },
  },
  {
    name: 'with_weight 0 by somebody who is not root',
    call: () => make('Utility', 'with_weight', { call: batch(many(4_095, () => remark())), weight: NO_WEIGHT }),
  },
  {
    name: 'sudo of a batch',
    call: () => make('Sudo', 'sudo', { call: batch(many(4_000, () => remark())) }),
  },
  {
    name: 'dispatch_as within dispatch_as, by somebody who is not root',
    call: () =>
      nest(32, remark(), (call) =>
        make('Utility', 'dispatch_as', { asOrigin: { type: 'system', value: { type: 'Root' } }, call }),
      ),
  },
  {
    name: 'if_else on 31 levels whose main calls fail',
    call: () =>
      nest(31, remark(), (fallback) => make('Utility', 'if_else', { main: make('Sudo', 'remove_key'), fallback })),
    prepare: (of) => must(of, make('Sudo', 'set_key', { new: to(person(9)) }), alice),
  },
  {
    name: '60,000 keys, by somebody who is not root',
    call: () => make('System', 'kill_storage', { keys: many(60_000, () => remark()).map(() => new Uint8Array()) }),
  },
  {
    name: '1,000 proxies with all places taken',
    prepare(of) {
      for (let i = 0; i < 31; i++) {
        must(
          of,
          make('Proxy', 'add_proxy', { delegate: to(person(i + 1)), proxyType: { type: 'Any' }, delay: 0 }),
          person(200),
        );
      }
      must(of, make('Proxy', 'add_proxy', { delegate: to(alice), proxyType: { type: 'Any' }, delay: 0 }), person(200));
    },
    call: () =>
      batch(
        many(1_000, () => make('Proxy', 'proxy', { real: to(person(200)), forceProxyType: undefined, call: remark() })),
      ),
  },
  {
    name: 'a proposal that is too long',
    call: () => make('Governance', 'propose', { call: batch(many(4_000, () => remark(800))) }),
  },
];
