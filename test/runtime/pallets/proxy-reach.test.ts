/**
 * What proxies reach: every call of the runtime is tried under every kind, and what the account had before is held against
 * what it has afterwards.
 */
import t from 'tap';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { outerTypes } from '../../../runtime/metadata/metadata.ts';
import * as datanets from '../../../runtime/pallets/ledger/datanets.ts';
import * as models from '../../../runtime/pallets/ledger/models.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import { allows, isSuperset, KINDS, reachedCalls } from '../../../runtime/pallets/standard/proxy-types.ts';
import * as session from '../../../runtime/pallets/standard/session.ts';
import { STAKING_HOLD } from '../../../runtime/pallets/standard/staking/hold.ts';
import { store as staking } from '../../../runtime/pallets/standard/staking/store.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { decode, snakeCase } from '../../../runtime/primitives/scale/codec.ts';
import { ScaleError, Sink } from '../../../runtime/primitives/scale/io.ts';
import type { TypeDef } from '../../../runtime/primitives/scale/type.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import { Random } from '../../fuzz/random.ts';
import { keySet, setKeysCall } from './session-keys.ts';
import { createWorld, genesisOf, make, OPEN, person, to, transfer, type World } from './world.ts';

/** For whom the proxy acts, the proxy, and its friend. */
const [OWNER, PROXY, FRIEND, OTHER] = [21, 22, 23, 24].map(person) as [AccountId, AccountId, AccountId, AccountId];
type Kind = (typeof KINDS)[number];
const RESTRICTED = KINDS.filter((kind) => kind !== 'Any');

/** The owner stakes and validates, and so does the proxy's friend. */
async function worldOfProxies(): Promise<World> {
  const validators = [OWNER, FRIEND];
  const world = await createWorld(
    genesisOf({
      balances: [OWNER, PROXY, FRIEND, OTHER].map((account) => ({ account, amount: 10_000n * OPEN })),
      aura: { authorities: [], slotDurationMs: 3_000 },
      grandpa: { authorities: [] },
      session: validators.map((account) => ({ account, ...keySet(`validator ${account[0]}`).keys })),
      sessionLength: 50,
      staking: {
        validatorCount: 2,
        minimumValidatorCount: 1,
        stakers: validators.map((stash) => ({ stash, bond: 1_000n * OPEN, status: { type: 'Validator' } })),
        invulnerables: [],
        minNominatorBond: OPEN,
        minValidatorBond: 10n * OPEN,
        inflation: 0,
        eras: {},
      },
    }),
  );
  for (const kind of KINDS) {
    const added = make('Proxy', 'add_proxy', { delegate: to(PROXY), proxyType: { type: kind }, delay: 0 });
    if (!world.dispatch(added, OWNER).outcome.ok) throw new Error(`no proxy of the kind ${kind}`);
  }
  return world;
}

const actAs = (kind: Kind, call: RuntimeCall): RuntimeCall =>
  make('Proxy', 'proxy', { real: to(OWNER), forceProxyType: { type: kind }, call });

/** What the inner call came to, by name; undefined where it succeeded. */
function tried(world: World, kind: Kind, call: RuntimeCall): string | undefined {
  const { error, events } = world.dispatch(actAs(kind, call), PROXY);
  if (error !== undefined) return error;
  const executed = events.findLast(({ name }) => name === 'Proxy.ProxyExecuted')!;
  return executed.value.result.ok ? undefined : world.assembly.describeError(executed.value.result.error);
}

// ---- what the owner has --------------------------------------------------------------------------------------

interface Standing {
  readonly total: bigint;
  readonly free: bigint;
  /** By pallet and reason. */
  readonly holds: ReadonlyMap<string, bigint>;
  readonly payee: string;
  readonly keys: string;
  readonly owns: string;
}
const nameOf = (pallet: number, reason: number): string => `${pallet}.${reason}`;

function standing({ host }: World): Standing {
  const holds = new Map(
    balances.store.Holds.get(host, OWNER).map(({ id, amount }) => [nameOf(id.pallet, id.reason), amount] as const),
  );
  const keys = session.nextKeys(host, OWNER);
  const owned = (entries: Iterable<[unknown, { owner: AccountId }]>): string[] =>
    [...entries].flatMap(([id, { owner }]) => (toHex(owner) === toHex(OWNER) ? [String(id)] : []));
  const payee = staking.Payee.get(host, OWNER);
  return {
    total: balances.totalBalance(host, OWNER),
    free: balances.freeBalance(host, OWNER),
    holds,
    payee: payee === undefined ? '' : `${payee.type} ${'value' in payee ? toHex(payee.value) : ''}`,
    keys: keys === undefined ? '' : toHex(keys.aura),
    owns: [...owned(datanets.store.Datanets.entries(host)), '/', ...owned(models.store.Adapters.entries(host))].join(),
  };
}

const STAKE = nameOf(STAKING_HOLD.pallet, STAKING_HOLD.reason);
/** Holds that a kind may add to: what comes back to the account, or answers for what the kind is there for. */
const MAY_HOLD: Readonly<Record<string, readonly string[]>> = {
  NonTransfer: [STAKE],
  Governance: [nameOf(51, 0)],
  Staking: [STAKE, nameOf(session.KEYS_HOLD.pallet, session.KEYS_HOLD.reason)],
};

/** What a restricted kind must not have done. */
function harm(kind: Kind, before: Standing, after: Standing): string | undefined {
  if (after.total < before.total) return `the account has ${before.total - after.total} less`;
  if (after.owns !== before.owns) return 'it owns something else';
  if (/^(Account|None)/.test(after.payee)) return 'its rewards go elsewhere';
  if (kind !== 'Staking' && after.keys !== before.keys) return 'its session keys changed';
  for (const [reason, amount] of after.holds) {
    const more = amount > (before.holds.get(reason) ?? 0n);
    if (more && !(MAY_HOLD[kind] ?? []).includes(reason)) return `more is on hold for ${reason}`;
  }
  return undefined;
}

// ---- calls with arguments of a hostile proxy ------------------------------------------------------------------

const POOL = [OWNER, PROXY, FRIEND, OTHER];
const AMOUNTS = [0n, 1n, OPEN, 5n * OPEN, 900n * OPEN, 8_000n * OPEN, (1n << 127n) - 1n];

/** Writes a value of a type: accounts of those who are there, numbers that mean something, amounts of all sizes. */
function write(sink: Sink, type: TypeDef, random: Random, outer: (name: string) => TypeDef, depth = 0): void {
  const { shape } = type;
  const part = (of: TypeDef): void => write(sink, of, random, outer, depth + 1);
  switch (shape.kind) {
    case 'outer':
      // Calls in calls are tried by themselves.
      if (shape.name === 'RuntimeCall') sink.bytes(Uint8Array.of(0, 0, 0));
      else write(sink, outer(shape.name), random, outer, depth);
      return;
    case 'primitive': {
      if (shape.name === 'str' || shape.name === 'bool') {
        sink.u8(shape.name === 'str' ? 0 : random.below(2));
        return;
      }
      const bytes = Number(/\d+/.exec(shape.name)?.[0] ?? 8) / 8;
      const value = bytes === 16 ? random.pick(AMOUNTS) : BigInt(random.below(3));
      for (let i = 0; i < bytes; i++) sink.u8(Number((value >> BigInt(8 * i)) & 0xffn));
      return;
    }
    case 'composite':
      for (const { type: of } of shape.fields) part(of);
      return;
    case 'tuple':
      for (const of of shape.of) part(of);
      return;
    case 'array':
      if (shape.length === 32) sink.bytes(random.pick(POOL));
      else sink.bytes(random.bytes(shape.length));
      return;
    case 'sequence': {
      const length = depth > 8 ? 0 : 1 + random.below(2);
      sink.compact(length);
      for (let i = 0; i < length; i++) part(shape.of);
      return;
    }
    case 'compact':
      sink.compactBig(random.chance(0.5) ? BigInt(random.below(3)) : random.pick(AMOUNTS));
      return;
    case 'variant': {
      // An address that is none would be refused before anything else.
      const named = shape.variants.filter(({ name }) => name === 'Id');
      const { index, fields } = random.pick(named.length > 0 ? named : shape.variants);
      sink.u8(index);
      for (const { type: of } of fields) part(of);
    }
  }
}

function hostileCall(
  world: World,
  pallet: number,
  index: number,
  args: TypeDef,
  random: Random,
): RuntimeCall | undefined {
  const sink = new Sink();
  sink.u8(pallet);
  sink.u8(index);
  const outer = outerTypes({ assembly: world.assembly, extensions: world.runtime.executive.extensions });
  write(sink, args, random, outer);
  try {
    return decode(world.assembly.call, sink.finish());
  } catch (problem) {
    // Amounts where a smaller number belongs, lists that are too long.
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
}

const callsOf = (world: World) =>
  world.assembly.pallets.flatMap(({ name: pallet, index: at, calls }) =>
    Object.entries(calls ?? {}).map(([name, { index, args }]) => ({
      name: `${pallet}.${snakeCase(name)}`,
      pallet: at,
      index,
      args: args.type,
    })),
  );

t.test('every call under every kind: refused, or nothing is lost by it', async (test) => {
  const world = await worldOfProxies();
  test.teardown(world.close);
  const all = callsOf(world);
  test.ok(all.length > 100, `${all.length} calls`);
  const names = new Set(all.map(({ name }) => name));
  for (const name of reachedCalls()) test.ok(names.has(name), `${name} is a call of the runtime`);

  const wrong: string[] = [];
  const succeeded = new Set<string>();
  for (const { name, pallet, index, args } of all) {
    for (const kind of RESTRICTED) {
      const random = new Random('proxy reach', name, kind);
      // A call that a kind never reaches is refused whatever its arguments are.
      const rounds = reachedCalls().has(name) ? 40 : 4;
      for (let round = 0; round < rounds; round++) {
        const call = hostileCall(world, pallet, index, args, random);
        if (call === undefined) continue;
        world.host.beginTransaction();
        const before = standing(world);
        const result = tried(world, kind, call);
        const problem = harm(kind, before, standing(world));
        world.host.rollbackTransaction();
        if (!allows({ type: kind }, call) && result !== 'System.CallFiltered') wrong.push(`${kind} ${name}: ${result}`);
        if (problem !== undefined) wrong.push(`${kind} ${name}: ${problem}`);
        if (result === undefined) succeeded.add(`${kind} ${name}`);
      }
    }
  }
  test.same(wrong, []);
  // The arguments are such that calls do succeed, or nothing would be shown.
  for (const expected of [
    'NonTransfer Staking.bond_extra',
    'NonTransfer Staking.unbond',
    'NonTransfer Staking.set_payee',
    'NonTransfer Proxy.add_proxy',
    'Staking Staking.validate',
    'Staking Staking.nominate',
    'CancelProxy Utility.batch',
    'Datanets Utility.force_batch',
  ]) {
    test.ok(succeeded.has(expected), expected);
  }
});

t.test('what is refused is refused inside of everything', async (test) => {
  const world = await worldOfProxies();
  test.teardown(world.close);
  const stolen: RuntimeCall[] = [
    transfer(FRIEND, OPEN),
    make('Balances', 'burn', { value: OPEN, keepAlive: true }),
    make('Staking', 'set_payee', { payee: { type: 'Account', value: FRIEND } }),
    make('Proxy', 'add_proxy', { delegate: to(FRIEND), proxyType: { type: 'Any' }, delay: 0 }),
    make('Proxy', 'remove_proxies'),
    make('Multisig', 'as_multi_threshold_1', { otherSignatories: [FRIEND], call: transfer(FRIEND, OPEN) }),
  ];
  const wrappers: ((call: RuntimeCall) => RuntimeCall)[] = [
    (call) => make('Utility', 'batch', { calls: [call] }),
    (call) => make('Utility', 'batch_all', { calls: [call] }),
    (call) => make('Utility', 'force_batch', { calls: [call] }),
    (call) =>
      make('Utility', 'if_else', { main: make('Utility', 'batch_all', { calls: [call, call] }), fallback: call }),
    (call) => make('Utility', 'as_derivative', { index: 0, call }),
    (call) => make('Multisig', 'as_multi_threshold_1', { otherSignatories: [FRIEND], call }),
    (call) => actAs('Any', call),
    (call) => make('Sudo', 'sudo_as', { who: to(OWNER), call }),
    (call) => make('Utility', 'dispatch_as', { asOrigin: { type: 'system', value: { type: 'Root' } }, call }),
  ];
  // The owner is a proxy of its own kind elsewhere: whoever acts for the owner must not get there through it.
  world.dispatch(make('Proxy', 'add_proxy', { delegate: to(OWNER), proxyType: { type: 'Any' }, delay: 0 }), OTHER);
  const before = standing(world);
  const others = balances.totalBalance(world.host, OTHER);
  for (const kind of RESTRICTED) {
    for (const inner of stolen) {
      for (const outer of wrappers) {
        for (const call of [inner, outer(inner), ...wrappers.map((second) => second(outer(inner)))]) {
          world.host.beginTransaction();
          tried(world, kind, call);
          const problem = harm(kind, before, standing(world));
          if (problem !== undefined) test.fail(`${kind}: ${call.type}.${call.value.type}: ${problem}`);
          const proxies = world.dispatch(actAs('Any', make('System', 'remark', { remark: new Uint8Array() })), FRIEND);
          if (proxies.error !== 'Proxy.NotProxy') test.fail(`${kind} made the friend a proxy`);
          world.host.rollbackTransaction();
        }
      }
    }
    const through = make('Proxy', 'proxy', {
      real: to(OTHER),
      forceProxyType: undefined,
      call: transfer(FRIEND, OPEN),
    });
    for (const outer of [through, ...wrappers.map((wrap) => wrap(through))]) tried(world, kind, outer);
    test.equal(balances.totalBalance(world.host, OTHER), others, `${kind} does not reach accounts behind the owner`);
  }
});

t.test('kinds that name others, and rules by argument', (test) => {
  for (const kind of KINDS) {
    test.ok(isSuperset({ type: 'Any' }, { type: kind }));
    test.ok(isSuperset({ type: kind }, { type: kind }));
    test.equal(isSuperset({ type: kind }, { type: 'Any' }), kind === 'Any');
  }
  test.notOk(isSuperset({ type: 'NonTransfer' }, { type: 'Staking' }), 'it could nominate and set keys');
  test.notOk(isSuperset({ type: 'NonTransfer' }, { type: 'Compute' }));
  test.ok(isSuperset({ type: 'NonTransfer' }, { type: 'CancelProxy' }));
  for (const [payee, allowed] of [
    [{ type: 'Staked' }, true],
    [{ type: 'Stash' }, true],
    [{ type: 'Account', value: OWNER }, false],
    [{ type: 'None' }, false],
  ] as const) {
    for (const kind of ['NonTransfer', 'Staking'] as const) {
      test.equal(allows({ type: kind }, make('Staking', 'set_payee', { payee })), allowed);
      test.equal(allows({ type: kind }, make('Staking', 'bond', { value: OPEN, payee })), allowed);
    }
  }
  test.notOk(allows({ type: 'NonTransfer' }, make('Balances', 'a call of tomorrow')));
  test.notOk(allows({ type: 'NonTransfer' }, make('Staking', 'toString')));
  test.notOk(
    allows({ type: 'NonTransfer' }, setKeysCall('thief', OWNER)),
    'whose keys they are, its stake answers for',
  );
  test.end();
});
