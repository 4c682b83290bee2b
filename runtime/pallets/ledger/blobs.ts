/**
 * Blobs that the chain has committed to: nodes keep nothing else. The chain knows a blob's hash and size and how many
 * things refer to it; the bytes lie in the nodes' blob stores. Other pallets commit; nobody can by a call of its own.
 *
 * Validators attest which blobs they hold, many at a time, by unsigned transactions under their session keys (as
 * `pallet_im_online` has its heartbeats). What validators of the past attested does not count.
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
import { apiMethod, call, constant, type Env, event, pallet, runtimeApi } from '../../framework/pallet.ts';
import { identity, map, storage, value } from '../../framework/storage.ts';
import type { Hashing, Host } from '../../host.ts';
import { type Availability, availability, MAX_ATTESTED_BLOBS } from '../../primitives/attribution/availability.ts';
import { hashOf } from '../../primitives/attribution/canonical.ts';
import { equalBytes, toHex } from '../../primitives/bytes.ts';
import {
  bool,
  encode,
  fixedBytes,
  option,
  type StructValue,
  struct,
  u32,
  u64,
  vec,
} from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, balance, type Hash, hash, sameAccount } from '../../primitives/types.ts';
import { invalid, type ValidTransaction } from '../../primitives/validity.ts';
import * as historical from '../standard/historical.ts';
import { currentIndex } from '../standard/session.ts';
import { MAX_VALIDATOR_SET } from '../standard/staking/types.ts';
import * as system from '../standard/system.ts';

/** Larger files are cut into several. */
export const MAX_BLOB_BYTES = 1n << 30n;
/** OPEN held a byte while somebody's blob is kept: 0.1 OPEN a megabyte. */
export const BYTE_DEPOSIT = 10n ** 11n;

/** Blocks from one attestation of a validator to its next: they are free. */
const ATTESTATION_GAP = 3;
/** Blobs that one call of the runtime API may ask for. */
export const MAX_ASKED = 4_096;

export const committedBlob = struct({ bytes: u64, references: u32 });

const attesters = struct({
  session: u32,
  /** Position among the validators of the session, the next sequence, block of the last attestation. */
  last: vec(struct({ validator: u32, next: u32, at: u32 }), MAX_VALIDATOR_SET),
});

export const store = storage('Blobs', {
  Blobs: map(identity(hash), committedBlob, 'Committed blobs: size, and how many refer to it.'),
  Holders: map(
    identity(hash),
    vec(accountId, MAX_VALIDATOR_SET),
    'Validators that attested that they hold a blob; those of the past leave with the next attestation.',
  ),
  Attesters: value(attesters, { session: 0, last: [] }, 'Who attested in the session, and when last.'),
});

export const errors = {
  Empty: error(0, 'A blob has at least one byte.'),
  TooLarge: error(1, 'The blob is larger than `MaxBlobBytes`.'),
  OtherSize: error(2, 'The blob was committed to with another size: one of the two is wrong.'),
  NotValidator: error(3, 'Only validators of the current session attest, with the keys that they work with.'),
  WrongSequence: error(4, 'It is not the attestation that is next of this validator in this session.'),
  TooSoon: error(5, 'The last attestation of this validator is too recent.'),
  NothingNew: error(6, 'The attestation changes nothing.'),
};

export const events = {
  Committed: event(0, { blob: hash, bytes: u64 }, 'Nodes take these bytes in from now on.'),
  Dropped: event(1, { blob: hash }, 'Nothing refers to the blob any longer.'),
  Attested: event(
    2,
    { validator: accountId, held: u32, lost: u32 },
    'A validator holds so many more blobs, or so many fewer.',
  ),
};

/** One more thing refers to the blob. Fails if its size is out of bounds or differs from what is known. */
export function commit(env: Env, blob: Hash, bytes: bigint): void {
  ensure(bytes > 0n, errors.Empty);
  ensure(bytes <= MAX_BLOB_BYTES, errors.TooLarge);
  const known = store.Blobs.get(env.host, blob);
  ensure(known === undefined || known.bytes === bytes, errors.OtherSize);
  store.Blobs.insert(env.host, blob, { bytes, references: (known?.references ?? 0) + 1 });
  if (known === undefined) env.emit(events.Committed, { blob, bytes });
}

/** One thing less refers to it; the last one frees the nodes from keeping it. */
export function drop(env: Env, blob: Hash): void {
  const known = store.Blobs.get(env.host, blob);
  if (known === undefined) return;
  if (known.references > 1) store.Blobs.insert(env.host, blob, { ...known, references: known.references - 1 });
  else {
    store.Blobs.remove(env.host, blob);
    store.Holders.remove(env.host, blob);
    env.emit(events.Dropped, { blob });
  }
}

/** All blobs that are committed to, in the order of their hashes. */
export function* committed(host: Host): Generator<Hash> {
  yield* store.Blobs.keys(host);
}

/** What the keys begin with under which the state has the blobs that are committed to; the blob's hash follows it. */
export const committedPrefix = (hashing: Hashing): Uint8Array => store.Blobs.prefix(hashing);

export const sizeOf = (host: Host, blob: Hash): bigint | undefined => store.Blobs.get(host, blob)?.bytes;

// ---- availability --------------------------------------------------------------------------------------------

/** Validators of the current session that attested that they hold the blob. */
export function holdersOf(host: Host, blob: Hash): readonly AccountId[] {
  const held = store.Holders.get(host, blob) ?? [];
  if (held.length === 0) return held;
  const working = new Set(historical.workingKeys(host).map(([who]) => toHex(who)));
  return held.filter((who) => working.has(toHex(who)));
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

/** Whether an account attested that it holds the blob. */
export const isHolder = (host: Host, blob: Hash, who: AccountId): boolean =>
  (store.Holders.get(host, blob) ?? []).some((each) => sameAccount(each, who));

/** What of an attestation is new, or why it is not taken. */
function newsOf(host: Host, { chain, session, validator, sequence, held, lost }: Availability) {
  const by = attesterAt(host, validator);
  if (by === undefined || session !== by.session || !equalBytes(chain, system.blockHash(host, 0)))
    return errors.NotValidator;
  if (sequence !== by.sequence) return errors.WrongSequence;
  if (system.blockNumber(host) < by.from) return errors.TooSoon;
  const unique = (blobs: readonly Hash[]): Hash[] => [...new Map(blobs.map((blob) => [toHex(blob), blob])).values()];
  const more = unique(held).filter((blob) => store.Blobs.has(host, blob) && !isHolder(host, blob, by.account));
  const fewer = unique(lost).filter((blob) => isHolder(host, blob, by.account));
  if (more.length + fewer.length === 0) return errors.NothingNew;
  return { by, more, fewer };
}
const isError = (found: ReturnType<typeof newsOf>): found is ErrorDef => 'docs' in found;

function attest(env: Env, attestation: Availability): void {
  const { host } = env;
  const news = newsOf(host, attestation);
  if (isError(news)) fail(news);
  const { by, more, fewer } = news;
  // Those who are no validators any more make room.
  for (const blob of more) store.Holders.insert(host, blob, [...holdersOf(host, blob), by.account]);
  for (const blob of fewer) {
    const left = holdersOf(host, blob).filter((each) => !sameAccount(each, by.account));
    if (left.length > 0) store.Holders.insert(host, blob, [...left]);
    else store.Holders.remove(host, blob);
  }
  const { session, validator } = by;
  const before = store.Attesters.get(host);
  const others = before.session === session ? before.last.filter((each) => each.validator !== validator) : [];
  const last = [...others, { validator, next: by.sequence + 1, at: system.blockNumber(host) }];
  store.Attesters.put(host, { session, last });
  env.emit(events.Attested, { validator: by.account, held: more.length, lost: fewer.length });
}

const attestationArgs = { attestation: availability, signature: fixedBytes(64) };
const ATTEST = cost(150_000_000n, 5, 2);
const perBlob = cost(2_000_000n, 3, 1);
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

const api = runtimeApi({
  name: 'BlobsApi',
  version: 2,
  docs: 'What nodes keep for the ledger, and who holds it.',
  methods: {
    expected: apiMethod({
      inputs: { blob: hash },
      output: option(u64),
      docs: 'Size of a blob that the chain has committed to.',
      run: ({ host }, { blob }) => sizeOf(host, blob),
    }),
    holders: apiMethod({
      inputs: { blob: hash },
      output: vec(accountId),
      docs: 'Validators of the current session that attested that they hold the blob.',
      run: ({ host }, { blob }) => [...holdersOf(host, blob)],
    }),
    availability: apiMethod({
      inputs: { blobs: vec(hash, MAX_ASKED) },
      output: availabilityReport,
      docs: 'How many validators there are, and how many of them hold each of the blobs.',
      run: ({ host }, { blobs: asked }) => ({
        validators: historical.workingKeys(host).length,
        holders: asked.map((blob) => holdersOf(host, blob).length),
      }),
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
        addWeight(ATTEST, scaleWeight(perBlob, BigInt(held.length + lost.length))),
      docs: 'A validator holds these blobs, and does not hold those any more. Without a signer: its session key has signed.',
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
  constants: {
    MaxAttestedBlobs: constant(u32, MAX_ATTESTED_BLOBS, 'Blobs of each kind that one attestation names.'),
    AttestationGap: constant(u32, ATTESTATION_GAP, 'Blocks from one attestation of a validator to its next.'),
    MaxBlobBytes: constant(u64, MAX_BLOB_BYTES, 'The largest blob.'),
    ByteDeposit: constant(balance, BYTE_DEPOSIT, 'OPEN held a byte.'),
  },
  apis: [api],
});
