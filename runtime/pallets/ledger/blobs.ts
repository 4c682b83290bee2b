/**
 * Blobs that the chain has committed to: nodes keep nothing else. Another pallet *claims* files for a purpose (the records
 * of a batch, an adapter, a batch of receipts) on behalf of an account, which has a deposit on hold by byte for as long as
 * the claim lasts. A claim names hash and size of each file. Claims do not hinder each other: where two give a hash
 * different sizes, the bytes decide, since only one of them can ever be held.
 *
 * Validators attest whose claims' files they hold, many at a time, by unsigned transactions under their session keys (as
 * `pallet_im_online` has its heartbeats). A claim is *available* once more than half of the validators of a session have
 * attested it, and remains so. What validators of the past attested does not count.
 */
import {
  addWeight,
  cost,
  type ErrorDef,
  ensure,
  ensureNone,
  error,
  fail,
  scaleWeight,
} from '../../framework/dispatch.ts';
import { apiMethod, call, constant, type Env, event, pallet, type Reason, runtimeApi } from '../../framework/pallet.ts';
import { identity, map, nMap, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Hashing, Host } from '../../host.ts';
import { type Availability, availability, MAX_ATTESTED_CLAIMS } from '../../primitives/attribution/availability.ts';
import { hashOf, part } from '../../primitives/attribution/canonical.ts';
import {
  adapterId,
  type BlobRef,
  baseModelId,
  batchIndex,
  blobRef,
  type ClaimId,
  claimId,
  datanetId,
  receiptBatchId,
} from '../../primitives/attribution/ids.ts';
import { equalBytes, toHex } from '../../primitives/bytes.ts';
import { BYTE_DEPOSIT, stateDeposit } from '../../primitives/deposit.ts';
import {
  bool,
  decode,
  encode,
  fixedBytes,
  type Infer,
  type StructValue,
  struct,
  u32,
  u64,
  variants,
  vec,
} from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  type Balance,
  balance,
  type Hash,
  hash,
  sameAccount,
  type Weight,
} from '../../primitives/types.ts';
import { invalid, type ValidTransaction } from '../../primitives/validity.ts';
import * as balances from '../standard/balances.ts';
import * as historical from '../standard/historical.ts';
import { currentIndex } from '../standard/session.ts';
import { MAX_VALIDATOR_SET } from '../standard/staking/types.ts';
import * as system from '../standard/system.ts';

/** Larger files are cut into several. */
export const MAX_BLOB_BYTES = 1n << 30n;
/** Files of one claim: what a training publishes is the most. */
export const MAX_CLAIM_FILES = 16;

/** Blocks from one attestation of a validator to its next: they are free. */
const ATTESTATION_GAP = 3;
/** Claims that one call of the runtime API may ask for. */
export const MAX_ASKED = 4_096;

const DEPOSIT: Reason = { pallet: 25, reason: 0 };

// ---- types ---------------------------------------------------------------------------------------------------

/** What the files are kept for. Nodes give each kind a share of their room. */
export const purpose = part(
  'ClaimPurpose',
  variants({
    Records: struct({ datanet: datanetId, batch: batchIndex }),
    BaseModel: baseModelId,
    Training: adapterId,
    /** A training's states in between, for as long as it can be disputed. */
    Segments: adapterId,
    Receipts: receiptBatchId,
    /** What was asked and said, for the auditors of one audit. */
    Disclosure: u32,
  }),
);
export type Purpose = Infer<typeof purpose>;

export const claim = part(
  'Claim',
  struct({
    depositor: accountId,
    /** On hold from the depositor. */
    deposit: balance,
    purpose,
    files: vec(blobRef, MAX_CLAIM_FILES),
    /** More than half of a session's validators have held the files together. */
    available: bool,
  }),
);
export type Claim = Infer<typeof claim>;

const attesters = struct({
  session: u32,
  /** Position among the validators of the session, the next sequence, block of the last attestation. */
  last: vec(struct({ validator: u32, next: u32, at: u32 }), MAX_VALIDATOR_SET),
});

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Blobs', {
  NextClaim: value(claimId, 0n as ClaimId, 'Id of the next claim.'),
  Claims: map(twox64Concat(claimId), claim, 'What nodes keep, for whom, and for what.'),
  Blobs: nMap([identity(hash), twox64Concat(u64)], u32, 'How many claims name a hash with a size.'),
  Holders: map(
    twox64Concat(claimId),
    vec(accountId, MAX_VALIDATOR_SET),
    'Validators that attested that they hold a claim’s files; those of the past leave with the next attestation.',
  ),
  Attesters: value(attesters, { session: 0, last: [] }, 'Who attested in the session, and when last.'),
  Arrivals: map(twox64Concat(u64), claimId, 'Batches of records that became available and wait for their Datanet.'),
  ArrivalsFrom: value(u64, 0n, 'Place of the first arrival.'),
  ArrivalsUntil: value(u64, 0n, 'Place of the next arrival.'),
});

export const errors = {
  Empty: error(0, 'A blob has at least one byte.'),
  TooLarge: error(1, 'The blob is larger than `MaxBlobBytes`.'),
  TooManyFiles: error(2, 'A claim has between one and `MaxClaimFiles` files.'),
  NotValidator: error(3, 'Only validators of the current session attest, with the keys that they work with.'),
  WrongSequence: error(4, 'It is not the attestation that is next of this validator in this session.'),
  TooSoon: error(5, 'The last attestation of this validator is too recent.'),
  NothingNew: error(6, 'The attestation changes nothing.'),
  UnknownClaim: error(7, 'There is no such claim.'),
};

export const events = {
  Claimed: event(
    0,
    { claim: claimId, depositor: accountId, purpose, files: vec(blobRef, MAX_CLAIM_FILES) },
    'Nodes take these files in from now on.',
  ),
  Released: event(1, { claim: claimId }, 'Nodes need not keep these files any longer; the deposit went back.'),
  Attested: event(
    2,
    { validator: accountId, held: u32, lost: u32 },
    'A validator holds the files of so many more claims, or of so many fewer.',
  ),
  Available: event(3, { claim: claimId }, 'More than half of the validators hold the files.'),
};

// ---- claims --------------------------------------------------------------------------------------------------

export interface NewClaim {
  readonly depositor: AccountId;
  readonly purpose: Purpose;
  readonly files: readonly BlobRef[];
  /** The hold that the deposit is taken from, in place of the depositor's free balance. */
  readonly from?: Reason;
}

/** What is held for files: by byte, and for their entries in the state. */
export const depositFor = (files: readonly BlobRef[]): Balance =>
  files.reduce((sum, { bytes }) => sum + bytes * BYTE_DEPOSIT, stateDeposit(1 + files.length, 64 + 44 * files.length));

/** What {@link commit} or {@link release} weighs. */
export const claimWeight = (files: number): Weight =>
  cost(12_000_000n + 3_000_000n * BigInt(files), 5 + files, 5 + files);

/** Has nodes keep files. Fails if one's size is out of bounds, or the deposit is not there. */
export function commit(env: Env, { depositor, purpose: why, files, from }: NewClaim): ClaimId {
  const { host } = env;
  ensure(files.length >= 1 && files.length <= MAX_CLAIM_FILES, errors.TooManyFiles);
  for (const { bytes } of files) {
    ensure(bytes > 0n, errors.Empty);
    ensure(bytes <= MAX_BLOB_BYTES, errors.TooLarge);
  }
  const deposit = depositFor(files);
  if (from === undefined) balances.hold(env, DEPOSIT, depositor, deposit);
  else balances.rehold(env, from, DEPOSIT, depositor, deposit);
  const id = store.NextClaim.get(host);
  store.NextClaim.put(host, (id + 1n) as ClaimId);
  store.Claims.insert(host, id, { depositor, deposit, purpose: why, files: [...files], available: false });
  for (const { hash: name, bytes } of files) store.Blobs.mutate(host, [name, bytes], (count) => (count ?? 0) + 1);
  env.emit(events.Claimed, { claim: id, depositor, purpose: why, files: [...files] });
  return id;
}

/** Ends a claim. Its deposit goes to the depositor's free balance, or to its hold for the reason `to`. */
export function release(env: Env, id: ClaimId, to?: Reason): void {
  const { host } = env;
  const found = store.Claims.take(host, id);
  if (found === undefined) return;
  const { depositor, deposit, files } = found;
  for (const { hash: name, bytes } of files) {
    store.Blobs.mutate(host, [name, bytes], (count = 0) => (count > 1 ? count - 1 : undefined));
  }
  store.Holders.remove(host, id);
  if (to === undefined) balances.release(env, DEPOSIT, depositor, deposit);
  else balances.rehold(env, DEPOSIT, to, depositor, deposit);
  env.emit(events.Released, { claim: id });
}

/** Another account has the deposit on hold from now on. Fails if it has not enough. */
export function handOver(env: Env, id: ClaimId, to: AccountId): void {
  const found = store.Claims.get(env.host, id) ?? fail(errors.UnknownClaim);
  balances.hold(env, DEPOSIT, to, found.deposit);
  balances.release(env, DEPOSIT, found.depositor, found.deposit);
  store.Claims.insert(env.host, id, { ...found, depositor: to });
}

export const claimOf = (host: Host, id: ClaimId): Claim | undefined => store.Claims.get(host, id);

/** Whether the files were with more than half of the validators once: nobody can say that they were withheld. */
export const isAvailable = (host: Host, id: ClaimId): boolean => store.Claims.get(host, id)?.available ?? false;

/** All claims with their ids. */
export function* claims(host: Host): Generator<[ClaimId, Claim]> {
  yield* store.Claims.entries(host);
}

/** What the keys of claims begin with in the state. */
export const claimsPrefix = (hashing: Hashing): Uint8Array => store.Claims.prefix(hashing);
/** The claim behind such a key. */
export const claimOfKey = (key: Uint8Array): ClaimId => decode(claimId, key.slice(-8));

/** Whether somebody claims a blob of that hash and size. */
export const isExpected = (host: Host, blob: Hash, bytes: bigint): boolean => store.Blobs.has(host, [blob, bytes]);

/** Takes up to `most` of the batches of records that became available, the earliest first. */
export function takeArrivals(host: Host, most: number): ClaimId[] {
  const from = store.ArrivalsFrom.get(host);
  const until = store.ArrivalsUntil.get(host);
  const taken: ClaimId[] = [];
  let at = from;
  for (; at < until && taken.length < most; at++) {
    const id = store.Arrivals.take(host, at);
    if (id !== undefined) taken.push(id);
  }
  if (at > from) store.ArrivalsFrom.put(host, at);
  return taken;
}

// ---- availability --------------------------------------------------------------------------------------------

/** Tells the validators of the current session from others. */
function workingSet(host: Host): { readonly count: number; has(who: AccountId): boolean } {
  const working = new Set(historical.workingKeys(host).map(([who]) => toHex(who)));
  return { count: working.size, has: (who) => working.has(toHex(who)) };
}

/** Validators of the current session that attested that they hold a claim's files. */
export function holdersOf(host: Host, id: ClaimId, working = workingSet(host)): readonly AccountId[] {
  return (store.Holders.get(host, id) ?? []).filter((who) => working.has(who));
}

export interface Attester {
  readonly account: AccountId;
  /** Its GRANDPA key. */
  readonly key: Uint8Array;
  readonly session: number;
  readonly validator: number;
  /** Of its next attestation. */
  readonly sequence: number;
  /** The first block that takes it. */
  readonly from: number;
}

function attesterAt(host: Host, validator: number): Attester | undefined {
  const [account, keys] = historical.workingKeys(host)[validator] ?? [];
  if (account === undefined || keys === undefined) return undefined;
  const session = currentIndex(host);
  const { session: of, last } = store.Attesters.get(host);
  const before = of === session ? last.find((each) => each.validator === validator) : undefined;
  const place = { account, key: keys.grandpa, session, validator };
  return before === undefined
    ? { ...place, sequence: 0, from: 0 }
    : { ...place, sequence: before.next, from: before.at + ATTESTATION_GAP };
}

/** Validators of the current session with a key that `holds` knows. */
export const attestersAmong = (host: Host, holds: (key: Uint8Array) => boolean): readonly Attester[] =>
  historical.workingKeys(host).flatMap(([, keys], at) => (holds(keys.grandpa) ? (attesterAt(host, at) ?? []) : []));

/** Whether an account attested that it holds a claim's files. */
export const isHolder = (host: Host, id: ClaimId, who: AccountId): boolean =>
  (store.Holders.get(host, id) ?? []).some((each) => sameAccount(each, who));

/** What of an attestation is new, or why it is not taken. */
function newsOf(host: Host, { chain, session, validator, sequence, held, lost }: Availability) {
  const by = attesterAt(host, validator);
  if (by === undefined || session !== by.session || !equalBytes(chain, system.blockHash(host, 0)))
    return errors.NotValidator;
  if (sequence !== by.sequence) return errors.WrongSequence;
  if (system.blockNumber(host) < by.from) return errors.TooSoon;
  const more = [...new Set(held)].filter((id) => store.Claims.has(host, id) && !isHolder(host, id, by.account));
  const fewer = [...new Set(lost)].filter((id) => !more.includes(id) && isHolder(host, id, by.account));
  if (more.length + fewer.length === 0) return errors.NothingNew;
  return { by, more, fewer };
}
const isError = (found: ReturnType<typeof newsOf>): found is ErrorDef => 'docs' in found;

function attest(env: Env, attestation: Availability): void {
  const { host } = env;
  const news = newsOf(host, attestation);
  if (isError(news)) fail(news);
  const { by, more, fewer } = news;
  const working = workingSet(host);
  for (const id of more) {
    // Those who are no validators any more make room.
    const holders = [...holdersOf(host, id, working), by.account];
    store.Holders.insert(host, id, holders);
    if (2 * holders.length > working.count) makeAvailable(env, id);
  }
  for (const id of fewer) {
    const left = holdersOf(host, id, working).filter((each) => !sameAccount(each, by.account));
    if (left.length > 0) store.Holders.insert(host, id, left);
    else store.Holders.remove(host, id);
  }
  const { session, validator } = by;
  const before = store.Attesters.get(host);
  const others = before.session === session ? before.last.filter((each) => each.validator !== validator) : [];
  const last = [...others, { validator, next: by.sequence + 1, at: system.blockNumber(host) }];
  store.Attesters.put(host, { session, last });
  env.emit(events.Attested, { validator: by.account, held: more.length, lost: fewer.length });
}

function makeAvailable(env: Env, id: ClaimId): void {
  const { host } = env;
  const found = store.Claims.get(host, id);
  if (found === undefined || found.available) return;
  store.Claims.insert(host, id, { ...found, available: true });
  if (found.purpose.type === 'Records') {
    const place = store.ArrivalsUntil.get(host);
    store.Arrivals.insert(host, place, id);
    store.ArrivalsUntil.put(host, place + 1n);
  }
  env.emit(events.Available, { claim: id });
}

const attestationArgs = { attestation: availability, signature: fixedBytes(64) };
const ATTEST = cost(150_000_000n, 6, 3);
const perClaim = cost(4_000_000n, 4, 4);
const attestationTag = struct({ domain: fixedBytes(32), session: u32, validator: u32, sequence: u32 });

/** Throws `TransactionRefused`: `BadProof`, `Future`, or `Stale` for what is known. */
function attestationValidity(
  host: Host,
  { attestation, signature }: StructValue<typeof attestationArgs>,
): ValidTransaction {
  const { session, validator, sequence } = attestation;
  const news = newsOf(host, attestation);
  if (isError(news)) {
    const later = sequence > (attesterAt(host, validator)?.sequence ?? 0) || news === errors.TooSoon;
    throw invalid(news === errors.NotValidator ? 'BadProof' : later ? 'Future' : 'Stale');
  }
  if (!host.verifyEd25519(signature, hashOf(host, availability, attestation), news.by.key)) throw invalid('BadProof');
  return {
    priority: 1n << 63n,
    requires: [],
    provides: [encode(attestationTag, { domain: availability.domain, session, validator, sequence })],
    longevity: 64n,
    // A validator's own block takes it: free transactions are not taken from strangers.
    propagate: false,
  };
}

// ---- the pallet ----------------------------------------------------------------------------------------------

/** Answer of `BlobsApi_availability`, the counts in the order of the question. */
export const availabilityReport = struct({ validators: u32, holders: vec(u32) });

export const api = runtimeApi({
  name: 'BlobsApi',
  version: 3,
  docs: 'What nodes keep for the ledger, and who holds it.',
  methods: {
    expected: apiMethod({
      inputs: { blob: hash, bytes: u64 },
      output: bool,
      docs: 'Whether somebody has claimed a blob of that hash and size.',
      run: ({ host }, { blob, bytes }) => isExpected(host, blob, bytes),
    }),
    holders: apiMethod({
      inputs: { claim: claimId },
      output: vec(accountId),
      docs: 'Validators of the current session that attested that they hold a claim’s files.',
      run: ({ host }, { claim: id }) => [...holdersOf(host, id)],
    }),
    availability: apiMethod({
      inputs: { claims: vec(claimId, MAX_ASKED) },
      output: availabilityReport,
      docs: 'How many validators there are, and how many of them hold the files of each claim.',
      run: ({ host }, { claims: asked }) => {
        const working = workingSet(host);
        return { validators: working.count, holders: asked.map((id) => holdersOf(host, id, working).length) };
      },
    }),
    submit_attestation_unsigned_extrinsic: apiMethod({
      inputs: attestationArgs,
      output: bool,
      docs: 'Gives a validator’s attestation to the pool of this node; false where there is none.',
      run: (env, value) => env.submitUnsigned({ type: 'Blobs', value: { type: 'attest', value } }),
    }),
  },
});

export const blobs = pallet({
  name: 'Blobs',
  index: 25,
  docs: 'Content-addressed files that the ledger refers to.',
  storage: store,
  events,
  errors,
  calls: {
    attest: call({
      index: 0,
      args: attestationArgs,
      weight: ({ attestation: { held, lost } }) =>
        addWeight(ATTEST, scaleWeight(perClaim, BigInt(held.length + lost.length))),
      docs: 'A validator holds the files of these claims, and of those no more. Without a signer: its session key has signed.',
      run({ origin, ...env }, { attestation }) {
        ensureNone(origin);
        attest(env, attestation);
      },
    }),
  },
  unsigned: {
    call: 'attest',
    validate: ({ host }, args) => attestationValidity(host, args as StructValue<typeof attestationArgs>),
  },
  holdReasons: { Deposit: DEPOSIT },
  constants: {
    MaxAttestedClaims: constant(u32, MAX_ATTESTED_CLAIMS, 'Claims of each kind that one attestation names.'),
    AttestationGap: constant(u32, ATTESTATION_GAP, 'Blocks from one attestation of a validator to its next.'),
    MaxBlobBytes: constant(u64, MAX_BLOB_BYTES, 'The largest blob.'),
    MaxClaimFiles: constant(u32, MAX_CLAIM_FILES, 'Files of one claim.'),
    ByteDeposit: constant(balance, BYTE_DEPOSIT, 'OPEN held a byte.'),
  },
  apis: [api],
});

export const { calls } = blobs;
