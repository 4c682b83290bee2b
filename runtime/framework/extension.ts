/** Transaction extensions: what a transaction carries and proves besides its call (`TransactionExtension`). */
import type { Codec } from '../primitives/scale/codec.ts';
import type { AccountId, BlockNumber } from '../primitives/types.ts';
import type { ValidTransaction } from '../primitives/validity.ts';
import type { DispatchInfo, DispatchOutcome } from './dispatch.ts';
import type { Env } from './pallet.ts';
import type { RuntimeCall } from './runtime-call.ts';

/** A transaction whose call is not decoded yet. */
export interface TransactionHead {
  readonly env: Env;
  readonly signer: AccountId;
  /** Encoded length in bytes, the outer length prefix included. */
  readonly length: number;
}

/** One transaction under examination. */
export interface TransactionContext {
  readonly env: Env;
  /** Undefined for transactions without a signer. */
  readonly signer: AccountId | undefined;
  readonly call: RuntimeCall;
  readonly info: DispatchInfo;
  /** Encoded length in bytes, the outer length prefix included. */
  readonly length: number;
  /** Number of the block that it is validated for. */
  readonly blockNumber: BlockNumber;
}

export interface Extension<E, P = undefined> {
  readonly name: string;
  /** Holds for transactions without signature too. */
  readonly bare?: true;
  /** What stands in the transaction. */
  readonly extra: Codec<E>;
  /** What is signed but not sent. */
  readonly implicit: Codec<unknown>;
  implicitOf(env: Env, extra: E, blockNumber: BlockNumber): unknown;
  /**
   * Before the call is decoded and the signature is looked at, with the little that is known then. Throws
   * `TransactionRefused`. What it refuses has cost next to nothing.
   */
  precheck?(tx: TransactionHead, extra: E): void;
  /** Throws `TransactionRefused`. Changes nothing that outlives a validation. */
  validate?(tx: TransactionContext, extra: E): Partial<ValidTransaction> | undefined;
  /** Before dispatch, in the block: charges, counts. Throws `TransactionRefused`. */
  prepare?(tx: TransactionContext, extra: E): P;
  /** After dispatch, whatever came of it. */
  postDispatch?(tx: TransactionContext, prepared: P, outcome: DispatchOutcome): void;
}

export const extension = <E, P = undefined>(spec: Extension<E, P>): Extension<E, P> => spec;

// biome-ignore lint/suspicious/noExplicitAny: extensions of all shapes stand side by side
export type AnyExtension = Extension<any, any>;
