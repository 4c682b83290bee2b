/**
 * Proxy: accounts that act for others, at once or after an announcement, and pure accounts that nobody has the key of
 * (`pallet_proxy`).
 */
import { byCallLength, encodedCall, type OuterCalls } from '../../framework/assembly.ts';
import {
  accountOf,
  actingAs,
  actualWeight,
  addWeight,
  cost,
  type DispatchInfo,
  dispatchResult,
  type ErrorDef,
  ensure,
  ensureSigned,
  error,
  fail,
  filtered,
  resultOf,
} from '../../framework/dispatch.ts';
import { type CallContext, call, constant, type Env, event, pallet } from '../../framework/pallet.ts';
import type { RuntimeCall } from '../../framework/runtime-call.ts';
import { map, mapWithDefault, storage, twox64Concat } from '../../framework/storage.ts';
import type { Hashing, Host } from '../../host.ts';
import { compareBytes, equalBytes, utf8 } from '../../primitives/bytes.ts';
import {
  compact,
  encode,
  fixedBytes,
  type Infer,
  named,
  option,
  struct,
  tuple,
  u16,
  u32,
  variants,
  vec,
} from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  asAccountId,
  asHash,
  type Balance,
  balance,
  blockNumber,
  type Hash,
  hash,
  multiAddress,
  sameAccount,
  type Weight,
} from '../../primitives/types.ts';
import * as balances from './balances.ts';
import { allows, compareProxyTypes, isSuperset, type ProxyType, proxyType } from './proxy-types.ts';
import * as system from './system.ts';

const CENT = 10n ** 16n;
export const PROXY_DEPOSIT_BASE: Balance = 20n * CENT;
export const PROXY_DEPOSIT_FACTOR: Balance = CENT;
export const ANNOUNCEMENT_DEPOSIT_BASE: Balance = 20n * CENT;
export const ANNOUNCEMENT_DEPOSIT_FACTOR: Balance = 2n * CENT;
export const MAX_PROXIES = 32;
export const MAX_PENDING = 32;

// ---- types, storage ------------------------------------------------------------------------------------------

const definition = named(
  'pallet_proxy::ProxyDefinition',
  struct({ delegate: accountId, proxyType, delay: blockNumber }),
  {
    params: [
      { name: 'AccountId', type: accountId.type },
      { name: 'ProxyType', type: proxyType.type },
      { name: 'BlockNumber', type: blockNumber.type },
    ],
  },
);
type Definition = Infer<typeof definition>;

const announcement = named(
  'pallet_proxy::Announcement',
  struct({ real: accountId, callHash: hash, height: blockNumber }),
  {
    params: [
      { name: 'AccountId', type: accountId.type },
      { name: 'Hash', type: hash.type },
      { name: 'BlockNumber', type: blockNumber.type },
    ],
  },
);
type Announcement = Infer<typeof announcement>;

const pureDeposit = named('pallet_proxy::PureDeposit', struct({ spawner: accountId, amount: balance }));

const depositKind = named('pallet_proxy::DepositKind', variants({ Proxies: null, Announcements: null }));

export const store = storage('Proxy', {
  Proxies: mapWithDefault(
    twox64Concat(accountId),
    tuple(vec(definition, MAX_PROXIES), balance),
    [[], 0n],
    'The set of account proxies. Maps the account which has delegated to the accounts which are being delegated to, together with the amount held on deposit.',
  ),
  PureDeposits: map(
    twox64Concat(accountId),
    pureDeposit,
    'What the spawner of a pure account left for its first proxy. The deposit beside the proxies is the account’s own.',
  ),
  Announcements: mapWithDefault(
    twox64Concat(accountId),
    tuple(vec(announcement, MAX_PENDING), balance),
    [[], 0n],
    'The announcements made by the proxy (key).',
  ),
});

export const events = {
  ProxyExecuted: event(0, { result: dispatchResult }, 'A proxy was executed correctly, with the given.'),
  PureCreated: event(
    1,
    { pure: accountId, who: accountId, proxyType, disambiguationIndex: u16 },
    'A pure account has been created by new proxy with given disambiguation index and proxy type.',
  ),
  Announced: event(
    2,
    { real: accountId, proxy: accountId, callHash: hash },
    'An announcement was placed to make a call in the future.',
  ),
  ProxyAdded: event(
    3,
    { delegator: accountId, delegatee: accountId, proxyType, delay: blockNumber },
    'A proxy was added.',
  ),
  ProxyRemoved: event(
    4,
    { delegator: accountId, delegatee: accountId, proxyType, delay: blockNumber },
    'A proxy was removed.',
  ),
  DepositPoked: event(
    5,
    { who: accountId, kind: depositKind, oldDeposit: balance, newDeposit: balance },
    'A deposit stored for proxies or announcements was poked / updated.',
  ),
};

export const errors = {
  TooMany: error(0, 'There are too many proxies registered or too many announcements pending.'),
  NotFound: error(1, 'Proxy registration not found.'),
  NotProxy: error(2, 'Sender is not a proxy of the account to be proxied.'),
  Unproxyable: error(3, "A call which is incompatible with the proxy type's filter was attempted."),
  Duplicate: error(4, 'Account is already a proxy.'),
  NoPermission: error(5, 'Call may not be made by proxy because it may escalate its privileges.'),
  Unannounced: error(6, 'Announcement, if made at all, was made too recently.'),
  NoSelfProxy: error(7, 'Cannot add self as proxy.'),
};

// ---- definitions and deposits --------------------------------------------------------------------------------

const compareDefinitions = (a: Definition, b: Definition): number =>
  compareBytes(a.delegate, b.delegate) || compareProxyTypes(a.proxyType, b.proxyType) || a.delay - b.delay;

/** The first definition that makes `delegate` a proxy of `real`, of the kind wanted if there is one. */
function findProxy(host: Host, real: AccountId, delegate: AccountId, wanted: ProxyType | undefined): Definition {
  const [definitions] = store.Proxies.get(host, real);
  const found = definitions.find(
    (each) => sameAccount(each.delegate, delegate) && (wanted === undefined || each.proxyType.type === wanted.type),
  );
  return found ?? fail(errors.NotProxy);
}

/** Brings what is reserved from `before` to `after`. */
function adjustReserve(env: Env, who: AccountId, before: Balance, after: Balance): void {
  if (after > before) balances.reserve(env, who, after - before);
  else balances.unreserve(env, who, before - after);
}

const depositFor = (count: number, base: Balance, factor: Balance): Balance =>
  count === 0 ? 0n : base + factor * BigInt(count);

/**
 * Writes the proxies of an account and brings its deposit to what they need. A pure account leaves what its spawner has not
 * left for it; the spawner's part goes back to it with the last proxy. Returns the account's own deposit.
 */
function putProxies(env: Env, who: AccountId, definitions: Definition[], before: Balance): Balance {
  const { host } = env;
  const needed = depositFor(definitions.length, PROXY_DEPOSIT_BASE, PROXY_DEPOSIT_FACTOR);
  const spawned = store.PureDeposits.get(host, who)?.amount ?? 0n;
  const deposit = needed > spawned ? needed - spawned : 0n;
  adjustReserve(env, who, before, deposit);
  if (definitions.length > 0) {
    store.Proxies.insert(host, who, [definitions, deposit]);
    return deposit;
  }
  store.Proxies.remove(host, who);
  returnToSpawner(env, who);
  return deposit;
}

function returnToSpawner(env: Env, pure: AccountId): void {
  const left = store.PureDeposits.get(env.host, pure);
  if (left === undefined) return;
  store.PureDeposits.remove(env.host, pure);
  balances.unreserve(env, left.spawner, left.amount);
}

function addProxy(env: Env, delegator: AccountId, added: Definition): void {
  ensure(!sameAccount(delegator, added.delegate), errors.NoSelfProxy);
  const [definitions, before] = store.Proxies.get(env.host, delegator);
  ensure(!definitions.some((each) => compareDefinitions(each, added) === 0), errors.Duplicate);
  ensure(definitions.length < MAX_PROXIES, errors.TooMany);
  putProxies(env, delegator, [...definitions, added].sort(compareDefinitions), before);
  const { delegate, ...rest } = added;
  env.emit(events.ProxyAdded, { delegator, delegatee: delegate, ...rest });
}

function removeProxy(env: Env, delegator: AccountId, removed: Definition): void {
  const [definitions, before] = store.Proxies.get(env.host, delegator);
  const left = definitions.filter((each) => compareDefinitions(each, removed) !== 0);
  ensure(left.length < definitions.length, errors.NotFound);
  putProxies(env, delegator, left, before);
  const { delegate, ...rest } = removed;
  env.emit(events.ProxyRemoved, { delegator, delegatee: delegate, ...rest });
}

// ---- pure accounts -------------------------------------------------------------------------------------------

const PREFIX = utf8('modlpy/proxy____');
const derivation = tuple(fixedBytes(16), accountId, blockNumber, u32, proxyType, u16);

/** The account that `spawner` made with an extrinsic of a block; nobody has its key. */
export const pureAccount = (
  host: Hashing,
  spawner: AccountId,
  kind: ProxyType,
  index: number,
  made: { readonly height: number; readonly extrinsic: number },
): AccountId =>
  asAccountId(host.blake2_256(encode(derivation, [PREFIX, spawner, made.height, made.extrinsic, kind, index])));

// ---- announcements -------------------------------------------------------------------------------------------

/** Returns the deposit. */
function putAnnouncements(env: Env, who: AccountId, pending: Announcement[], before: Balance): Balance {
  const deposit = depositFor(pending.length, ANNOUNCEMENT_DEPOSIT_BASE, ANNOUNCEMENT_DEPOSIT_FACTOR);
  adjustReserve(env, who, before, deposit);
  if (pending.length === 0) store.Announcements.remove(env.host, who);
  else store.Announcements.insert(env.host, who, [pending, deposit]);
  return deposit;
}

/** Takes announcements back; fails with `otherwise` if there is none. */
function dropAnnouncements(
  env: Env,
  delegate: AccountId,
  isDropped: (each: Announcement) => boolean,
  otherwise: ErrorDef,
): void {
  const [pending, before] = store.Announcements.get(env.host, delegate);
  const left = pending.filter((each) => !isDropped(each));
  ensure(left.length < pending.length, otherwise);
  putAnnouncements(env, delegate, left, before);
}

const isOf =
  (real: AccountId, callHash: Hash) =>
  (each: Announcement): boolean =>
    sameAccount(each.real, real) && equalBytes(each.callHash, callHash);

// ---- acting for another --------------------------------------------------------------------------------------

const CHANGES_PROXIES = new Set(['add_proxy', 'remove_proxy']);
const NEEDS_ALL_RIGHTS = new Set(['remove_proxies', 'kill_pure']);

/** Whether a proxy may make a call: what its kind allows, and no more rights than it has itself. */
function mayCall(by: ProxyType, inner: RuntimeCall): boolean {
  if (inner.type === 'Proxy') {
    const name = inner.value.type;
    if (CHANGES_PROXIES.has(name) && !isSuperset(by, (inner.value.value as Definition).proxyType)) return false;
    if (NEEDS_ALL_RIGHTS.has(name) && by.type !== 'Any') return false;
  }
  return allows(by, inner);
}

/**
 * Whatever the signer may not do, for itself or for another, it may not do here either. Returns what the call used.
 */
function act(context: CallContext, { proxyType: kind }: Definition, real: AccountId, inner: RuntimeCall): Weight {
  const origin = filtered(actingAs(context.origin, real), (each) => mayCall(kind, each));
  const outcome = context.dispatch(inner, origin);
  context.emit(events.ProxyExecuted, { result: resultOf(outcome) });
  return actualWeight(outcome, context.infoOf(inner));
}

type InfoOf = (call: RuntimeCall) => DispatchInfo;
const ownWeight = (reads: number, writes: number): Weight =>
  cost(15_000_000n + 200_000n * BigInt(MAX_PROXIES + MAX_PENDING), reads, writes);
const PROXY = ownWeight(1, 0);
const PROXY_ANNOUNCED = ownWeight(3, 2);
const around = (own: Weight, inner: RuntimeCall, infoOf: InfoOf) => {
  const info = infoOf(inner);
  return { weight: addWeight(own, info.weight), class: info.class };
};
const CHANGE = cost(25_000_000n, 2, 2);

// ---- the pallet ----------------------------------------------------------------------------------------------

export const proxy = ({ codec }: OuterCalls) =>
  pallet({
    name: 'Proxy',
    index: 42,
    docs: 'Accounts that act for others.',
    storage: store,
    events,
    errors,
    constants: {
      ProxyDepositBase: constant(
        balance,
        PROXY_DEPOSIT_BASE,
        'The base amount of currency needed to reserve for creating a proxy.',
      ),
      ProxyDepositFactor: constant(balance, PROXY_DEPOSIT_FACTOR, 'The amount of currency needed per proxy added.'),
      MaxProxies: constant(u32, MAX_PROXIES, 'The maximum amount of proxies allowed for a single account.'),
      MaxPending: constant(
        u32,
        MAX_PENDING,
        'The maximum amount of time-delayed announcements that are allowed to be pending.',
      ),
      AnnouncementDepositBase: constant(
        balance,
        ANNOUNCEMENT_DEPOSIT_BASE,
        'The base amount of currency needed to reserve for creating an announcement.',
      ),
      AnnouncementDepositFactor: constant(
        balance,
        ANNOUNCEMENT_DEPOSIT_FACTOR,
        'The amount of currency needed per announcement made.',
      ),
    },
    calls: {
      proxy: call({
        index: 0,
        args: { real: multiAddress, forceProxyType: option(proxyType), call: codec },
        weight: ({ call: inner }, infoOf) => around(PROXY, inner, infoOf),
        docs: 'Dispatch the given `call` from an account that the sender is authorised for through `add_proxy`.',
        run(context, { real, forceProxyType, call: inner }) {
          const who = ensureSigned(context.origin);
          const account = accountOf(real);
          const found = findProxy(context.host, account, who, forceProxyType);
          ensure(found.delay === 0, errors.Unannounced);
          return { actualWeight: addWeight(PROXY, act(context, found, account, inner)) };
        },
      }),
      addProxy: call({
        index: 1,
        args: { delegate: multiAddress, proxyType, delay: blockNumber },
        weight: CHANGE,
        docs: 'Register a proxy account for the sender that is able to make calls on its behalf.',
        run(context, { delegate, ...rest }) {
          addProxy(context, ensureSigned(context.origin), { delegate: accountOf(delegate), ...rest });
        },
      }),
      removeProxy: call({
        index: 2,
        args: { delegate: multiAddress, proxyType, delay: blockNumber },
        weight: CHANGE,
        docs: 'Unregister a proxy account for the sender.',
        run(context, { delegate, ...rest }) {
          removeProxy(context, ensureSigned(context.origin), { delegate: accountOf(delegate), ...rest });
        },
      }),
      removeProxies: call({
        index: 3,
        args: {},
        weight: CHANGE,
        docs: 'Unregister all proxy accounts for the sender. WARNING: on a pure account this makes it inaccessible.',
        run(context) {
          const who = ensureSigned(context.origin);
          const [, deposit] = store.Proxies.get(context.host, who);
          putProxies(context, who, [], deposit);
        },
      }),
      createPure: call({
        index: 4,
        args: { proxyType, delay: blockNumber, index: u16 },
        weight: CHANGE,
        docs: 'Spawn a fresh new account that is guaranteed to be otherwise inaccessible, and initialize it with a proxy of `proxy_type` for `origin` sender.',
        run(context, { proxyType: kind, delay, index }) {
          const { host, emit } = context;
          const who = ensureSigned(context.origin);
          const made = { height: system.blockNumber(host), extrinsic: system.extrinsicIndex(host) };
          const pure = pureAccount(host, who, kind, index, made);
          ensure(!store.Proxies.has(host, pure), errors.Duplicate);
          const deposit = depositFor(1, PROXY_DEPOSIT_BASE, PROXY_DEPOSIT_FACTOR);
          balances.reserve(context, who, deposit);
          store.PureDeposits.insert(host, pure, { spawner: who, amount: deposit });
          store.Proxies.insert(host, pure, [[{ delegate: who, proxyType: kind, delay }], 0n]);
          emit(events.PureCreated, { pure, who, proxyType: kind, disambiguationIndex: index });
        },
      }),
      killPure: call({
        index: 5,
        args: {
          spawner: multiAddress,
          proxyType,
          index: u16,
          height: compact(blockNumber),
          extIndex: compact(u32),
        },
        weight: CHANGE,
        docs: 'Removes a previously spawned pure proxy; the spawner gets its deposit back, the account its own. WARNING: all access to this account will be lost; any funds held in it will be inaccessible.',
        run(context, { spawner, proxyType: kind, index, height, extIndex }) {
          const { host } = context;
          const who = ensureSigned(context.origin);
          const maker = accountOf(spawner);
          const pure = pureAccount(host, maker, kind, index, { height, extrinsic: extIndex });
          ensure(sameAccount(pure, who), errors.NoPermission);
          const [, deposit] = store.Proxies.get(host, who);
          putProxies(context, who, [], deposit);
        },
      }),
      announce: call({
        index: 6,
        args: { real: multiAddress, callHash: hash },
        weight: CHANGE,
        docs: 'Publish the hash of a proxy-call that will be made in the future.',
        run(context, { real, callHash }) {
          const { host, emit } = context;
          const who = ensureSigned(context.origin);
          const account = accountOf(real);
          findProxy(host, account, who, undefined);
          const [pending, before] = store.Announcements.get(host, who);
          ensure(pending.length < MAX_PENDING, errors.TooMany);
          const added = { real: account, callHash, height: system.blockNumber(host) };
          putAnnouncements(context, who, [...pending, added], before);
          emit(events.Announced, { real: account, proxy: who, callHash });
        },
      }),
      removeAnnouncement: call({
        index: 7,
        args: { real: multiAddress, callHash: hash },
        weight: CHANGE,
        docs: 'Remove a given announcement. May be called by a proxy account to remove a call they previously announced and return the deposit.',
        run(context, { real, callHash }) {
          const who = ensureSigned(context.origin);
          dropAnnouncements(context, who, isOf(accountOf(real), callHash), errors.NotFound);
        },
      }),
      rejectAnnouncement: call({
        index: 8,
        args: { delegate: multiAddress, callHash: hash },
        weight: CHANGE,
        docs: 'Remove the given announcement of a delegate. May be called by a target (proxied) account to remove a call that one of their delegates has announced they want to execute.',
        run(context, { delegate, callHash }) {
          const who = ensureSigned(context.origin);
          dropAnnouncements(context, accountOf(delegate), isOf(who, callHash), errors.NotFound);
        },
      }),
      proxyAnnounced: call({
        index: 9,
        args: { delegate: multiAddress, real: multiAddress, forceProxyType: option(proxyType), call: codec },
        weight: ({ call: inner }, infoOf) =>
          around(addWeight(PROXY_ANNOUNCED, byCallLength(codec, inner)), inner, infoOf),
        docs: 'Dispatch the given `call` from an account that the delegate is authorized for through `add_proxy`, and that was announced long enough ago.',
        run(context, { delegate, real, forceProxyType, call: inner }) {
          ensureSigned(context.origin);
          const { host } = context;
          const [by, account] = [accountOf(delegate), accountOf(real)];
          const found = findProxy(host, account, by, forceProxyType);
          const announced = isOf(account, asHash(host.blake2_256(encodedCall(codec, inner))));
          const ripe = system.blockNumber(host) - found.delay;
          dropAnnouncements(context, by, (each) => announced(each) && each.height <= ripe, errors.Unannounced);
          const own = addWeight(PROXY_ANNOUNCED, byCallLength(codec, inner));
          return { actualWeight: addWeight(own, act(context, found, account, inner)) };
        },
      }),
      pokeDeposit: call({
        index: 10,
        args: {},
        weight: cost(40_000_000n, 3, 3),
        docs: 'Poke / Adjust deposits made for proxies and announcements: brings them to what the runtime asks for today. Free if that changes anything.',
        run(context) {
          const { host, emit } = context;
          const who = ensureSigned(context.origin);
          let changed = false;
          const poke = (kind: 'Proxies' | 'Announcements', before: Balance, put: () => Balance): void => {
            const after = put();
            if (after === before) return;
            changed = true;
            emit(events.DepositPoked, { who, kind: { type: kind }, oldDeposit: before, newDeposit: after });
          };
          const [definitions, forProxies] = store.Proxies.get(host, who);
          poke('Proxies', forProxies, () => putProxies(context, who, definitions, forProxies));
          const [pending, forPending] = store.Announcements.get(host, who);
          poke('Announcements', forPending, () => putAnnouncements(context, who, pending, forPending));
          return changed ? { paysFee: false } : undefined;
        },
      }),
    },
  });
