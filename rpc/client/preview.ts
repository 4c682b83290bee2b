/** What a transaction will cost, what its bytes say, and whether it would work: before anybody signs, or before it is sent. */
import { dispatchError } from '../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../runtime/framework/runtime-call.ts';
import type { Hashing } from '../../runtime/host.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, result, unit } from '../../runtime/primitives/scale/codec.ts';
import type { Balance, Nonce, Weight } from '../../runtime/primitives/types.ts';
import { transactionValidityError } from '../../runtime/primitives/validity.ts';
import { LedgerError } from './errors.ts';
import { argsTypeOf, callFrom, docsOf, failureOf } from './event-records.ts';
import type { JsonRpcClient } from './json-rpc.ts';
import { readable } from './readable.ts';
import type { Signer } from './signer.ts';
import { signTransaction, type TransactionTerms, unsignedLike } from './transaction.ts';

/** What the bytes of a call say, read back from them. */
export interface ReadableCall {
  /** `Models`, `order_training`. */
  readonly pallet: string;
  readonly call: string;
  /** By the names of the metadata; bytes in hex, accounts as addresses, big integers in decimal text. */
  readonly args: unknown;
  /** What the runtime says that the call does. */
  readonly docs: string;
}

export interface Preview {
  readonly call: ReadableCall;
  /** Without tip. What the call turns out to use can make it less. */
  readonly fee: Balance;
  readonly weight: Weight;
  /** Bytes of the whole transaction. */
  readonly length: number;
  readonly nonce: Nonce;
}

function readableCall(call: RuntimeCall): ReadableCall {
  const { type, value } = call;
  const args = readable(argsTypeOf(call), value.value ?? {}, (inner) => readableCall(inner as RuntimeCall));
  return { pallet: type, call: value.type, args, docs: docsOf(call) };
}

interface QueryInfo {
  readonly weight: { readonly ref_time: number; readonly proof_size: number };
  readonly partialFee: string;
}

/** `call`: encoded. */
export async function previewOf(
  rpc: JsonRpcClient,
  who: Pick<Signer, 'scheme' | 'account'>,
  call: Uint8Array,
  terms: TransactionTerms,
): Promise<Preview> {
  const wire = unsignedLike(who, call, terms);
  const { weight, partialFee } = await rpc.ask<QueryInfo>('payment_queryInfo', toHex(wire));
  return {
    call: readableCall(callFrom(call)),
    fee: BigInt(partialFee),
    weight: { refTime: BigInt(weight.ref_time), proofSize: BigInt(weight.proof_size) },
    length: wire.length,
    nonce: terms.nonce,
  };
}

const applied = result(result(unit, dispatchError), transactionValidityError);

/** Rejects with a `CallFailed`, or with `REFUSED` where no block could take the transaction. */
export async function simulate(
  rpc: JsonRpcClient,
  hashing: Hashing,
  signer: Signer,
  call: Uint8Array,
  terms: TransactionTerms,
): Promise<void> {
  const wire = await signTransaction(hashing, signer, call, terms);
  const answer = decode(applied, fromHex(await rpc.ask<string>('system_dryRun', toHex(wire))));
  if (!answer.ok) throw new LedgerError('REFUSED', `no block can take the transaction: ${answer.error.value.type}`);
  if (!answer.value.ok) throw failureOf(answer.value.error);
}
