/** System: accounts and their references, the block under construction, events, limits (`frame_system`). */
import {
  addWeight,
  cost,
  type DispatchClass,
  type DispatchInfo,
  type DispatchOutcome,
  dispatchError,
  dispatchEventInfo,
  dispatchInfoCodec,
  ensureRoot,
  ensureSigned,
  error,
  exceeds,
  fail,
  PS_PER_MS,
  subWeight,
  ZERO_WEIGHT,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet } from '../../framework/pallet.ts';
import {
  blake2_128Concat,
  identity,
  map,
  mapWithDefault,
  nMap,
  optionalValue,
  storage,
  twox64Concat,
  value,
} from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { accountData, emptyAccountData } from '../../primitives/account-data.ts';
import { utf8 } from '../../primitives/bytes.ts';
import { type Digest, type DigestItem, digest } from '../../primitives/header.ts';
import {
  bool,
  bytes,
  type Codec,
  compact,
  decode,
  encode,
  fixedBytes,
  type Infer,
  named,
  option,
  struct,
  text,
  tuple,
  u16,
  u32,
  u64,
  variants,
  vec,
} from '../../primitives/scale/codec.ts';
import type { TypeDef } from '../../primitives/scale/type.ts';
import {
  type AccountId,
  accountId,
  asHash,
  type Hash,
  hash,
  type Nonce,
  nonce,
  type RuntimeVersion,
  runtimeVersion,
  type Weight,
  weight,
  ZERO_HASH,
} from '../../primitives/types.ts';

// ---- types ---------------------------------------------------------------------------------------------------

export const accountInfo = named(
  'frame_system::AccountInfo',
  struct({ nonce, consumers: u32, providers: u32, sufficients: u32, data: accountData }),
  {
    params: [
      { name: 'Nonce', type: nonce.type },
      { name: 'AccountData', type: accountData.type },
    ],
  },
);
export type AccountInfo = Infer<typeof accountInfo>;

export const phase = named(
  'frame_system::Phase',
  variants({ ApplyExtrinsic: u32, Finalization: null, Initialization: null }),
);
export type Phase = Infer<typeof phase>;

const perClass = <T>(codec: Codec<T>) =>
  named('frame_support::dispatch::PerDispatchClass', struct({ normal: codec, operational: codec, mandatory: codec }), {
    params: [{ name: 'T', type: codec.type }],
  });
const consumedWeight = perClass(weight);
type ConsumedWeight = Infer<typeof consumedWeight>;
const CLASS_FIELD = { Normal: 'normal', Operational: 'operational', Mandatory: 'mandatory' } as const;

const weightsPerClass = named(
  'frame_system::limits::WeightsPerClass',
  struct({ baseExtrinsic: weight, maxExtrinsic: option(weight), maxTotal: option(weight), reserved: option(weight) }),
);
const blockWeights = named(
  'frame_system::limits::BlockWeights',
  struct({ baseBlock: weight, maxBlock: weight, perClass: perClass(weightsPerClass) }),
);
const blockLength = named('frame_system::limits::BlockLength', struct({ max: perClass(u32) }));
const dbWeight = named('sp_weights::RuntimeDbWeight', struct({ read: u64, write: u64 }));

const lastRuntimeUpgrade = named(
  'frame_system::LastRuntimeUpgradeInfo',
  struct({ specVersion: compact(u32), specName: text() }),
);

const eventRecordType: TypeDef = {
  path: ['frame_system', 'EventRecord'],
  params: [
    { name: 'E', type: { shape: { kind: 'outer', name: 'RuntimeEvent' } } },
    { name: 'T', type: hash.type },
  ],
  shape: {
    kind: 'composite',
    fields: [
      { name: 'phase', type: phase.type },
      { name: 'event', type: { shape: { kind: 'outer', name: 'RuntimeEvent' } } },
      { name: 'topics', type: vec(hash).type },
    ],
  },
};

/** The encoded `Vec<EventRecord>`: the runtime appends to it and never reads it. */
const eventRecords: Codec<Uint8Array> = {
  type: { shape: { kind: 'sequence', of: eventRecordType } },
  minSize: 1,
  encodeTo: (sink, records) => sink.bytes(records),
  decodeFrom: (source) => source.bytes(source.remaining),
};
const NO_EVENTS = new Uint8Array([0]);

// ---- limits --------------------------------------------------------------------------------------------------

/** Execution may take two thirds of a slot of three seconds; the rest is for the network and the trie. */
const MAX_BLOCK: Weight = { refTime: 2_000n * PS_PER_MS, proofSize: 256n * 1024n * 1024n };
const share = (total: Weight, percent: bigint): Weight => ({
  refTime: (total.refTime * percent) / 100n,
  proofSize: (total.proofSize * percent) / 100n,
});
/** Decoding, the signature (checked beforehand, in parallel) and the extensions' own work. */
const BASE_EXTRINSIC: Weight = { refTime: 40_000_000n, proofSize: 0n };
const BASE_BLOCK: Weight = { refTime: 1n * PS_PER_MS, proofSize: 0n };
/** What transactions of the class Normal may take of a block; hooks and operational ones have the rest. */
export const NORMAL_WEIGHT = share(MAX_BLOCK, 75n);

export const BLOCK_WEIGHTS: Infer<typeof blockWeights> = {
  baseBlock: BASE_BLOCK,
  maxBlock: MAX_BLOCK,
  perClass: {
    normal: {
      baseExtrinsic: BASE_EXTRINSIC,
      maxExtrinsic: share(MAX_BLOCK, 65n),
      maxTotal: NORMAL_WEIGHT,
      reserved: ZERO_WEIGHT,
    },
    operational: {
      baseExtrinsic: BASE_EXTRINSIC,
      maxExtrinsic: share(MAX_BLOCK, 90n),
      maxTotal: MAX_BLOCK,
      reserved: share(MAX_BLOCK, 25n),
    },
    mandatory: { baseExtrinsic: BASE_EXTRINSIC, maxExtrinsic: undefined, maxTotal: undefined, reserved: undefined },
  },
};

const MAX_LENGTH = 5 * 1024 * 1024;
export const BLOCK_LENGTH: Infer<typeof blockLength> = {
  max: { normal: (MAX_LENGTH * 3) / 4, operational: MAX_LENGTH, mandatory: MAX_LENGTH },
};

/** Blocks whose hashes are kept: the longest mortality that a transaction can have. */
export const BLOCK_HASH_COUNT = 4096;
export const SS58_PREFIX = 42;

export const limitsOf = (of: DispatchClass) => BLOCK_WEIGHTS.perClass[CLASS_FIELD[of]];
export const maxLengthOf = (of: DispatchClass): number => BLOCK_LENGTH.max[CLASS_FIELD[of]];

// ---- storage -------------------------------------------------------------------------------------------------

const NEW_ACCOUNT: AccountInfo = { nonce: 0, consumers: 0, providers: 0, sufficients: 0, data: emptyAccountData };
const NO_WEIGHT: ConsumedWeight = { normal: ZERO_WEIGHT, operational: ZERO_WEIGHT, mandatory: ZERO_WEIGHT };

export const store = storage('System', {
  Account: mapWithDefault(
    blake2_128Concat(accountId),
    accountInfo,
    NEW_ACCOUNT,
    'The full account information of an account.',
  ),
  ExtrinsicCount: optionalValue(u32, 'Extrinsics in the current block.'),
  InherentsApplied: value(bool, false, 'Whether all inherents have been applied.'),
  BlockWeight: value(consumedWeight, NO_WEIGHT, 'Weight used in the current block, by class.'),
  AllExtrinsicsLen: optionalValue(u32, 'Total length in bytes of the extrinsics of the current block.'),
  BlockHash: mapWithDefault(twox64Concat(u32), hash, ZERO_HASH, 'Hashes of recent blocks by number.'),
  ExtrinsicData: mapWithDefault(
    twox64Concat(u32),
    bytes(),
    new Uint8Array(),
    'Extrinsics of the current block, by index.',
  ),
  Number: value(u32, 0, 'The number of the current block.'),
  ParentHash: value(hash, ZERO_HASH, 'Hash of the previous block.'),
  Digest: value(digest, { logs: [] }, 'Digest of the current block.'),
  Events: value(eventRecords, NO_EVENTS, 'Events deposited for the current block.'),
  EventCount: value(u32, 0, 'How many events the current block has.'),
  EventTopics: mapWithDefault(blake2_128Concat(hash), vec(tuple(u32, u32)), [], 'Positions of events by topic.'),
  LastRuntimeUpgrade: optionalValue(lastRuntimeUpgrade, 'The last runtime version that executed a block.'),
  UpgradedToU32RefCount: value(bool, true, 'Whether reference counts are 32 bits wide.'),
  UpgradedToTripleRefCount: value(bool, true, 'Whether accounts have three kinds of references.'),
  ExecutionPhase: optionalValue(phase, 'What the block is doing.'),
  ReapedNonces: map(
    blake2_128Concat(accountId),
    nonce,
    'The next nonces of reaped accounts that are ahead of the block number, until it has caught up.',
  ),
  ReapedNoncesByBlock: nMap(
    [identity(fixedBytes(4)), identity(accountId)],
    bool,
    'The same accounts by the block, big-endian, from which on nothing has to be remembered of them.',
  ),
});

export const events = {
  ExtrinsicSuccess: event(0, { dispatchInfo: dispatchInfoCodec }, 'An extrinsic completed successfully.'),
  ExtrinsicFailed: event(1, { dispatchError, dispatchInfo: dispatchInfoCodec }, 'An extrinsic failed.'),
  CodeUpdated: event(2, '`:code` was updated.'),
  NewAccount: event(3, { account: accountId }, 'A new account was created.'),
  KilledAccount: event(4, { account: accountId }, 'An account was reaped.'),
  Remarked: event(5, { sender: accountId, hash }, 'A remark was made on the chain.'),
};

export const errors = {
  InvalidSpecName: error(0, 'The name of specification does not match between the current runtime and the new one.'),
  SpecVersionNeedsToIncrease: error(1, 'The specification version may not decrease between runtimes.'),
  NonDefaultComposite: error(3, 'Suicide called when the account has a non-default composite data.'),
  NonZeroRefCount: error(4, 'There is a non-zero reference count preventing the account from being purged.'),
  CallFiltered: error(5, 'The origin filter prevents the call from being dispatched.'),
};

/** What a call fails with that its origin's filter refuses. */
export const CALL_FILTERED = errors.CallFiltered;

// ---- accounts ------------------------------------------------------------------------------------------------

export const account = (host: Host, who: AccountId): AccountInfo => store.Account.get(host, who);
export const accounts = (host: Host): Generator<[AccountId, AccountInfo]> => store.Account.entries(host);
export const accountExists = (host: Host, who: AccountId): boolean => store.Account.has(host, who);

/** Writes an account back whose references were not touched. */
export const putAccount = (host: Host, who: AccountId, info: AccountInfo): void =>
  store.Account.insert(host, who, info);

/** Whether something keeps the account in existence. */
export const isAlive = (info: AccountInfo): boolean => info.providers > 0 || info.sufficients > 0;

/**
 * The nonce that an account begins with: the block number, as on chains that give `frame_system` a default nonce. What was
 * signed for an account of the same key that was reaped before is stale then, and cannot be replayed. An account may have
 * sent more transactions than there were blocks in its life: how far it got is remembered until the block number is there.
 */
const firstNonce = (host: Host, who: AccountId): Nonce =>
  Math.max(blockNumber(host), store.ReapedNonces.get(host, who) ?? 0);

/** The nonce of the account's next transaction. */
export function nextNonce(host: Host, who: AccountId): Nonce {
  const info = account(host, who);
  return isAlive(info) ? info.nonce : firstNonce(host, who);
}

const bigEndian = (number: number): Uint8Array => encode(u32, number).reverse();
/** Entries that are dropped when one is added, so that there never are more than were added of late. */
const DROPPED_AT_A_TIME = 2;

function rememberNonce(host: Host, who: AccountId, reached: Nonce): void {
  const now = blockNumber(host);
  if (reached <= now) return;
  const due: [Uint8Array, AccountId][] = [];
  for (const key of store.ReapedNoncesByBlock.keys(host)) {
    if (due.length >= DROPPED_AT_A_TIME || decode(u32, key[0].slice().reverse()) > now) break;
    due.push(key);
  }
  for (const [at, each] of due) forgetNonce(host, each, at);
  store.ReapedNonces.insert(host, who, reached);
  store.ReapedNoncesByBlock.insert(host, [bigEndian(reached), who], true);
}

function forgetNonce(host: Host, who: AccountId, at: Uint8Array): void {
  store.ReapedNonces.remove(host, who);
  store.ReapedNoncesByBlock.remove(host, [at, who]);
}

function born(host: Host, who: AccountId, info: AccountInfo): AccountInfo {
  const began = firstNonce(host, who);
  const remembered = store.ReapedNonces.get(host, who);
  if (remembered !== undefined) forgetNonce(host, who, bigEndian(remembered));
  return { ...info, nonce: Math.max(info.nonce, began) };
}

/** Adds a reason for the account to exist; the first one creates it. */
export function incProviders(env: Env, who: AccountId, info: AccountInfo): AccountInfo {
  const alive = isAlive(info);
  if (!alive) env.emit(events.NewAccount, { account: who });
  const next = alive ? info : born(env.host, who, info);
  return { ...next, providers: next.providers + 1 };
}

/**
 * Takes a reason for the account's existence away; the last one removes it. Fails with `ConsumerRemaining` while
 * something still relies on the account. The caller writes what is returned; `undefined` means: remove it.
 */
export function decProviders(env: Env, who: AccountId, info: AccountInfo): AccountInfo | undefined {
  if (info.providers === 0) return info.sufficients > 0 ? info : undefined;
  if (info.providers === 1 && info.sufficients === 0) {
    if (info.consumers > 0) fail({ type: 'ConsumerRemaining' });
    rememberNonce(env.host, who, info.nonce);
    env.emit(events.KilledAccount, { account: who });
    return undefined;
  }
  return { ...info, providers: info.providers - 1 };
}

export const writeAccount = (host: Host, who: AccountId, info: AccountInfo | undefined): void => {
  if (info === undefined) store.Account.remove(host, who);
  else store.Account.insert(host, who, info);
};

/** How many things may rely on one account. */
const MAX_CONSUMERS = 64;

/** With one more thing that relies on the account. Fails with `NoProviders` if the account does not exist. */
export function withConsumer(info: AccountInfo): AccountInfo {
  if (info.providers === 0) fail({ type: 'NoProviders' });
  if (info.consumers >= MAX_CONSUMERS) fail({ type: 'TooManyConsumers' });
  return { ...info, consumers: info.consumers + 1 };
}

export const withoutConsumer = (info: AccountInfo): AccountInfo => ({
  ...info,
  consumers: Math.max(0, info.consumers - 1),
});

/** Something relies on the account from now on. Fails as {@link withConsumer}. */
export const incConsumers = (host: Host, who: AccountId): void => store.Account.mutate(host, who, withConsumer);
export const decConsumers = (host: Host, who: AccountId): void => store.Account.mutate(host, who, withoutConsumer);

export function incNonce(host: Host, who: AccountId): void {
  store.Account.mutate(host, who, (info) => ({ ...info, nonce: info.nonce + 1 }));
}

// ---- the block under construction ----------------------------------------------------------------------------

const EXTRINSIC_INDEX = utf8(':extrinsic_index');

export const blockNumber = (host: Host): number => store.Number.get(host);
export const parentHash = (host: Host): Hash => store.ParentHash.get(host);
export const blockHash = (host: Host, number: number): Hash => store.BlockHash.get(host, number);
export const blockDigest = (host: Host): Digest => store.Digest.get(host);
export const consumed = (host: Host): ConsumedWeight => store.BlockWeight.get(host);
export const extrinsicIndex = (host: Host): number => store.ExtrinsicCount.get(host) ?? 0;

export const depositLog = (host: Host, item: DigestItem): void => {
  store.Digest.mutate(host, ({ logs }) => ({ logs: [...logs, item] }));
};

export const eventsKey = (host: Host): Uint8Array => store.Events.key(host);
export const eventCount = (host: Host): number => store.EventCount.get(host);
export const putEventCount = (host: Host, count: number): void => store.EventCount.put(host, count);
export const executionPhase = (host: Host): Phase | undefined => store.ExecutionPhase.get(host);

export function resetEvents(host: Host): void {
  store.Events.kill(host);
  store.EventCount.kill(host);
}

/** Starts a block: number, parent, the author's pre-runtime digests. */
export function initialize(host: Host, number: number, parent: Hash, logs: Digest['logs']): void {
  store.ExecutionPhase.put(host, { type: 'Initialization' });
  host.put(EXTRINSIC_INDEX, encode(u32, 0));
  store.Number.put(host, number);
  store.Digest.put(host, { logs: logs.filter(({ type }) => type === 'PreRuntime') });
  store.ParentHash.put(host, parent);
  store.BlockHash.insert(host, number - 1, parent);
  // That of the genesis block stays: every transaction names it, and immortal ones were born by it.
  const leaving = number - BLOCK_HASH_COUNT - 1;
  if (leaving > 0) store.BlockHash.remove(host, leaving);
  store.BlockWeight.kill(host);
  store.AllExtrinsicsLen.kill(host);
  store.InherentsApplied.kill(host);
}

export function enterPhase(host: Host, next: Phase): void {
  store.ExecutionPhase.put(host, next);
}

/** Whether the running version differs from the one that executed the last block; notes it if so. */
export function noteRuntimeVersion(host: Host, version: RuntimeVersion): boolean {
  const last = store.LastRuntimeUpgrade.get(host);
  if (last?.specVersion === version.specVersion && last.specName === version.specName) return false;
  store.LastRuntimeUpgrade.put(host, { specVersion: version.specVersion, specName: version.specName });
  return true;
}

export const addConsumed = (host: Host, of: DispatchClass, used: Weight): void => {
  store.BlockWeight.mutate(host, (all) => ({ ...all, [CLASS_FIELD[of]]: addWeight(all[CLASS_FIELD[of]], used) }));
};
/** Gives back what a call announced and did not use. */
export const refundConsumed = (host: Host, of: DispatchClass, announced: Weight, actual: Weight): void => {
  const unspent = subWeight(announced, actual);
  store.BlockWeight.mutate(host, (all) => ({ ...all, [CLASS_FIELD[of]]: subWeight(all[CLASS_FIELD[of]], unspent) }));
};

export const totalConsumed = (all: ConsumedWeight): Weight =>
  addWeight(addWeight(all.normal, all.operational), all.mandatory);

/**
 * Whether an extrinsic still fits (`frame_system::CheckWeight`): the class's own limit first, then the block's,
 * where a class with a reserve may use it beyond the block's limit.
 */
export function fitsBlock(all: ConsumedWeight, of: DispatchClass, extra: Weight): boolean {
  const limits = limitsOf(of);
  const own = addWeight(all[CLASS_FIELD[of]], extra);
  if (limits.maxTotal !== undefined && exceeds(own, limits.maxTotal)) return false;
  if (!exceeds(addWeight(totalConsumed(all), extra), MAX_BLOCK)) return true;
  if (limits.reserved === undefined) return true;
  return !exceeds(own, limits.reserved);
}

export const extrinsicsLength = (host: Host): number => store.AllExtrinsicsLen.get(host) ?? 0;
export const putExtrinsicsLength = (host: Host, length: number): void => store.AllExtrinsicsLen.put(host, length);

export const inherentsApplied = (host: Host): boolean => store.InherentsApplied.get(host);
export const noteInherentsApplied = (host: Host): void => store.InherentsApplied.put(host, true);

export function noteExtrinsic(host: Host, encoded: Uint8Array): void {
  store.ExtrinsicData.insert(host, extrinsicIndex(host), encoded);
}

/** Emits the outcome and moves on to the next extrinsic. */
export function noteApplied(env: Env, info: DispatchInfo, outcome: DispatchOutcome): void {
  const dispatchInfo = dispatchEventInfo(info, outcome.post);
  if (outcome.ok) env.emit(events.ExtrinsicSuccess, { dispatchInfo });
  else env.emit(events.ExtrinsicFailed, { dispatchError: outcome.error, dispatchInfo });
  const next = extrinsicIndex(env.host) + 1;
  store.ExtrinsicCount.put(env.host, next);
  env.host.put(EXTRINSIC_INDEX, encode(u32, next));
  enterPhase(env.host, { type: 'ApplyExtrinsic', value: next });
}

export function noteFinishedExtrinsics(host: Host): void {
  host.delete(EXTRINSIC_INDEX);
  enterPhase(host, { type: 'Finalization' });
}

/** Ends the block: what only it needed goes, the digest and the extrinsics' bytes come back. */
export function finish(host: Host): { digest: Digest; extrinsics: Uint8Array[] } {
  store.ExecutionPhase.kill(host);
  const count = store.ExtrinsicCount.take(host) ?? 0;
  const extrinsics = Array.from({ length: count }, (_, i) => store.ExtrinsicData.take(host, i));
  store.InherentsApplied.kill(host);
  return { digest: store.Digest.get(host), extrinsics };
}

// ---- calls ---------------------------------------------------------------------------------------------------

const keyValue = tuple(bytes(), bytes());

/** `version` is asked for when needed, since it lists APIs that are put together after the pallets. */
export const system = (version: () => RuntimeVersion) =>
  pallet({
    name: 'System',
    index: 0,
    crate: 'frame_system',
    docs: 'Accounts, the block under construction, events and limits.',
    storage: store,
    events,
    errors,
    constants: {
      BlockWeights: constant(blockWeights, BLOCK_WEIGHTS, 'Block and extrinsic weights: base values and limits.'),
      BlockLength: constant(blockLength, BLOCK_LENGTH, 'The maximum length of a block in bytes.'),
      BlockHashCount: constant(u32, BLOCK_HASH_COUNT, 'How many block hashes are kept on the chain.'),
      DbWeight: constant(
        dbWeight,
        { read: cost(0n, 1, 0).refTime, write: cost(0n, 0, 1).refTime },
        'The weight of state accesses, in picoseconds.',
      ),
      Version: constant(runtimeVersion, () => version(), "The chain's current version."),
      SS58Prefix: constant(u16, SS58_PREFIX, 'The SS58 prefix of addresses.'),
    },
    calls: {
      remark: call({
        index: 0,
        args: { remark: bytes() },
        weight: ({ remark }) => cost(1_000_000n + BigInt(remark.length) * 500n),
        docs: 'Make some on-chain remark.',
        run: () => {},
      }),
      setStorage: call({
        index: 4,
        args: { items: vec(keyValue) },
        class: 'Operational',
        weight: ({ items }) => cost(2_000_000n, 0, items.length),
        docs: 'Set some items of storage.',
        run({ origin, host }, { items }) {
          ensureRoot(origin);
          for (const [key, stored] of items) host.put(key, stored);
        },
      }),
      killStorage: call({
        index: 5,
        args: { keys: vec(bytes()) },
        class: 'Operational',
        weight: ({ keys }) => cost(2_000_000n, 0, keys.length),
        docs: 'Kill some items from storage.',
        run({ origin, host }, { keys }) {
          ensureRoot(origin);
          for (const key of keys) host.delete(key);
        },
      }),
      killPrefix: call({
        index: 6,
        args: { prefix: bytes(), subkeys: u32 },
        class: 'Operational',
        weight: ({ subkeys }) => cost(2_000_000n, subkeys, subkeys),
        docs: 'Kill all storage items with a key that starts with the given prefix, at most `subkeys` of them.',
        run({ origin, host }, { prefix, subkeys }) {
          ensureRoot(origin);
          host.clearPrefix(prefix, subkeys);
        },
      }),
      remarkWithEvent: call({
        index: 7,
        args: { remark: bytes() },
        weight: ({ remark }) => cost(4_000_000n + BigInt(remark.length) * 1_500n),
        docs: 'Make some on-chain remark and emit event.',
        run({ origin, host, emit }, { remark }) {
          emit(events.Remarked, { sender: ensureSigned(origin), hash: asHash(host.blake2_256(remark)) });
        },
      }),
    },
    genesis({ host }) {
      store.BlockHash.insert(host, 0, new Uint8Array(32).fill(69) as Hash);
      store.ParentHash.put(host, new Uint8Array(32).fill(69) as Hash);
      store.LastRuntimeUpgrade.put(host, { specVersion: version().specVersion, specName: version().specName });
      store.UpgradedToU32RefCount.put(host, true);
      store.UpgradedToTripleRefCount.put(host, true);
      host.put(EXTRINSIC_INDEX, encode(u32, 0));
    },
  });
