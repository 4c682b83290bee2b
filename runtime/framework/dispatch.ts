/** Dispatch: origins, weights, and the ways in which a call can fail (`sp_runtime`, `frame_support::dispatch`). */
import { fixedBytes, type Infer, named, result, struct, u8, unit, variants } from '../primitives/scale/codec.ts';
import { type AccountId, type MultiAddress, type Weight, weight } from '../primitives/types.ts';
import type { RuntimeCall } from './runtime-call.ts';

// ---- weights -------------------------------------------------------------------------------------------------

export const ZERO_WEIGHT: Weight = { refTime: 0n, proofSize: 0n };
/** Picoseconds in a millisecond: weights are time on the reference machine. */
export const PS_PER_MS = 1_000_000_000n;

const MAX_U64 = (1n << 64n) - 1n;
const saturated = (amount: bigint): bigint => (amount > MAX_U64 ? MAX_U64 : amount);

/** Saturates, since callers may name weights of their own. */
export const addWeight = (a: Weight, b: Weight): Weight => ({
  refTime: saturated(a.refTime + b.refTime),
  proofSize: saturated(a.proofSize + b.proofSize),
});
export const subWeight = (a: Weight, b: Weight): Weight => ({
  refTime: a.refTime > b.refTime ? a.refTime - b.refTime : 0n,
  proofSize: a.proofSize > b.proofSize ? a.proofSize - b.proofSize : 0n,
});
export const minWeight = (a: Weight, b: Weight): Weight => ({
  refTime: a.refTime < b.refTime ? a.refTime : b.refTime,
  proofSize: a.proofSize < b.proofSize ? a.proofSize : b.proofSize,
});
export const scaleWeight = (a: Weight, factor: bigint): Weight => ({
  refTime: a.refTime * factor,
  proofSize: a.proofSize * factor,
});
/** Whether `a` exceeds `b` in any dimension. */
export const exceeds = (a: Weight, b: Weight): boolean => a.refTime > b.refTime || a.proofSize > b.proofSize;

/** Time of a state read that misses the caches and of a write's share in the trie, in picoseconds. */
const READ_PS = 8_000_000n;
const WRITE_PS = 20_000_000n;
/** Bytes of trie nodes that a proof of one value takes at a million keys. */
const PROOF_PER_READ = 2_500n;

/** Weight of a call from its own computation (picoseconds) and its state accesses. */
export const cost = (refTime: bigint, reads = 0, writes = 0): Weight => ({
  refTime: refTime + BigInt(reads) * READ_PS + BigInt(writes) * WRITE_PS,
  proofSize: BigInt(reads) * PROOF_PER_READ,
});

// ---- classes and information ---------------------------------------------------------------------------------

export const dispatchClass = named(
  'frame_support::dispatch::DispatchClass',
  variants({ Normal: null, Operational: null, Mandatory: null }),
);
export type DispatchClass = Infer<typeof dispatchClass>['type'];
export const pays = named('frame_support::dispatch::Pays', variants({ Yes: null, No: null }));

/** What a call costs, known before it runs. */
export interface DispatchInfo {
  readonly weight: Weight;
  readonly class: DispatchClass;
  readonly paysFee: boolean;
}

/** What it turned out to cost. Absent: as announced. */
export interface PostDispatchInfo {
  readonly actualWeight?: Weight;
  readonly paysFee?: boolean;
}

// ---- errors --------------------------------------------------------------------------------------------------

export const tokenError = named(
  'sp_runtime::TokenError',
  variants({
    FundsUnavailable: null,
    OnlyProvider: null,
    BelowMinimum: null,
    CannotCreate: null,
    UnknownAsset: null,
    Frozen: null,
    Unsupported: null,
    CannotCreateHold: null,
    NotExpendable: null,
    Blocked: null,
  }),
);
export type TokenError = Infer<typeof tokenError>['type'];

export const arithmeticError = named(
  'sp_arithmetic::ArithmeticError',
  variants({ Underflow: null, Overflow: null, DivisionByZero: null }),
);

export const dispatchError = named(
  'sp_runtime::DispatchError',
  variants({
    Other: null,
    CannotLookup: null,
    BadOrigin: null,
    Module: named('sp_runtime::ModuleError', struct({ index: u8, error: fixedBytes(4) })),
    ConsumerRemaining: null,
    NoProviders: null,
    TooManyConsumers: null,
    Token: tokenError,
    Arithmetic: arithmeticError,
    Transactional: named('sp_runtime::TransactionalError', variants({ LimitReached: null, NoLayer: null })),
    Exhausted: null,
    Corruption: null,
    Unavailable: null,
    RootNotAllowed: null,
    Trie: named(
      'sp_runtime::proving_trie::TrieError',
      variants({
        InvalidStateRoot: null,
        IncompleteDatabase: null,
        ValueAtIncompleteKey: null,
        DecoderError: null,
        InvalidHash: null,
        DuplicateKey: null,
        ExtraneousNode: null,
        ExtraneousValue: null,
        ExtraneousHashReference: null,
        InvalidChildReference: null,
        ValueMismatch: null,
        IncompleteProof: null,
        RootMismatch: null,
        DecodeError: null,
      }),
    ),
  }),
);
export type DispatchError = Infer<typeof dispatchError>;

/** A pallet's error as defined; which pallet it belongs to follows from where it is listed. */
export interface ErrorDef {
  readonly index: number;
  readonly docs: string;
  /** Events have one, errors none: neither can stand where the other belongs. */
  readonly codec?: never;
}
export const error = (index: number, docs: string): ErrorDef => ({ index, docs });

/** Thrown where a call fails as expected: everything it changed is rolled back. */
export class DispatchFailure extends Error {
  readonly reason: DispatchError | ErrorDef;
  /** What the call cost up to the failure, if less than announced. */
  readonly post: PostDispatchInfo;
  constructor(reason: DispatchError | ErrorDef, post: PostDispatchInfo = {}) {
    super('type' in reason ? reason.type : reason.docs);
    this.reason = reason;
    this.post = post;
  }
}

export function fail(cause: ErrorDef | DispatchError): never {
  throw new DispatchFailure(cause);
}
export function ensure(condition: boolean, cause: ErrorDef | DispatchError): asserts condition {
  if (!condition) throw new DispatchFailure(cause);
}
export const tokenFailure = (type: TokenError): DispatchError => ({ type: 'Token', value: { type } });
export const OVERFLOW: DispatchError = { type: 'Arithmetic', value: { type: 'Overflow' } };
export const UNDERFLOW: DispatchError = { type: 'Arithmetic', value: { type: 'Underflow' } };
export const BAD_ORIGIN: DispatchError = { type: 'BadOrigin' };

// ---- origins -------------------------------------------------------------------------------------------------

export type CallFilter = (call: RuntimeCall) => boolean;

export type Origin =
  | { readonly type: 'Root' }
  | {
      readonly type: 'Signed';
      readonly account: AccountId;
      /** Calls that whoever acts for the account may make; all where there is none. Holds for nested calls too. */
      readonly filter?: CallFilter;
    }
  | { readonly type: 'None' };

export const ROOT: Origin = { type: 'Root' };
export const NONE: Origin = { type: 'None' };
export const signed = (account: AccountId): Origin => ({ type: 'Signed', account });

/** Somebody else's account, for whom the same signer acts: what it may not do, it may not do for others either. */
export const actingAs = (origin: Origin, account: AccountId): Origin =>
  origin.type === 'Signed' ? { ...origin, account } : signed(account);

/** The origin with one filter more. Root passes all filters. */
export function filtered(origin: Origin, filter: CallFilter): Origin {
  if (origin.type !== 'Signed') return origin;
  const { filter: outer } = origin;
  return { ...origin, filter: outer === undefined ? filter : (call) => outer(call) && filter(call) };
}

export function ensureSigned(origin: Origin): AccountId {
  if (origin.type !== 'Signed') fail(BAD_ORIGIN);
  return origin.account;
}
export function ensureRoot(origin: Origin): void {
  ensure(origin.type === 'Root', BAD_ORIGIN);
}
export function ensureNone(origin: Origin): void {
  ensure(origin.type === 'None', BAD_ORIGIN);
}

export type DispatchOutcome =
  | { readonly ok: true; readonly post: PostDispatchInfo }
  | { readonly ok: false; readonly error: DispatchError; readonly post: PostDispatchInfo };

/** `DispatchResult` as events tell it. */
export const dispatchResult = result(unit, dispatchError);
export const resultOf = (outcome: DispatchOutcome): Infer<typeof dispatchResult> =>
  outcome.ok ? { ok: true, value: undefined } : { ok: false, error: outcome.error };

/** What a nested call used: at most what it announced (`extract_actual_weight`). */
export const actualWeight = (outcome: DispatchOutcome, info: DispatchInfo): Weight =>
  outcome.post.actualWeight === undefined ? info.weight : minWeight(outcome.post.actualWeight, info.weight);

/** The account of an address. Fails with `CannotLookup` for every kind but `Id`: there is no index of accounts. */
export const accountOf = (address: MultiAddress): AccountId =>
  address.type === 'Id' ? address.value : fail({ type: 'CannotLookup' });

/** `DispatchInfo` as Substrate writes it into events. */
export const dispatchInfoCodec = named(
  'frame_system::DispatchEventInfo',
  struct({ weight, class: dispatchClass, paysFee: pays }),
);
export const dispatchEventInfo = (
  info: DispatchInfo,
  post: PostDispatchInfo = {},
): Infer<typeof dispatchInfoCodec> => ({
  weight: post.actualWeight ?? info.weight,
  class: { type: info.class },
  paysFee: { type: (post.paysFee ?? info.paysFee) ? 'Yes' : 'No' },
});
