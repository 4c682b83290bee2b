/** Calls of the ledger as applications make them: a pallet's own definition with named, typed arguments. */

import type { CallDef } from '../../runtime/framework/pallet.ts';
import { placeOf } from '../../runtime/framework/place.ts';
import type { RuntimeCall } from '../../runtime/framework/runtime-call.ts';
import type { Codec } from '../../runtime/primitives/scale/codec.ts';
import { snakeCase } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError, Sink } from '../../runtime/primitives/scale/io.ts';
import type { AccountId, MultiAddress } from '../../runtime/primitives/types.ts';

/** The arguments of a call; nothing for a call that takes none. */
export type CallArgs<A> = keyof A extends never ? readonly [] : readonly [args: A];

/** One call, ready to be encoded. As an argument it may stand in the calls of utility, proxy, multisig and sudo. */
export class Call implements RuntimeCall {
  readonly type: string;
  readonly value: { readonly type: string; readonly value?: unknown };
  readonly docs: string;
  readonly #write: (sink: Sink) => void;

  private constructor(call: RuntimeCall, docs: string, write: (sink: Sink) => void) {
    this.type = call.type;
    this.value = call.value;
    this.docs = docs;
    this.#write = write;
  }

  static of<A>(definition: CallDef<A>, args: A): Call {
    const { pallet, palletIndex, name } = placeOf(definition);
    const value = { type: snakeCase(name), ...(definition.hasArgs && { value: args }) };
    return new Call({ type: pallet, value }, definition.docs, (sink) => {
      sink.u8(palletIndex);
      sink.u8(definition.index);
      definition.args.encodeTo(sink, args);
    });
  }

  encodeTo(sink: Sink): void {
    this.#write(sink);
  }

  /** Pallet and call index, then the arguments. Throws `ScaleError` for an argument out of its range. */
  encode(): Uint8Array {
    const sink = new Sink();
    this.#write(sink);
    return sink.finish();
  }
}

export function callOf<A>(definition: CallDef<A>, ...args: CallArgs<A>): Call {
  return Call.of(definition, (args[0] ?? {}) as A);
}

/** Calls as arguments of calls. A client reads them back with the definitions of the whole runtime, see `event-records.ts`. */
export const nestedCall: Codec<RuntimeCall> = {
  type: { shape: { kind: 'outer', name: 'RuntimeCall' } },
  minSize: 2,
  encodeTo(sink, call) {
    if (!(call instanceof Call)) throw new ScaleError('INVALID_VARIANT', 'a call in a call is made by callOf()');
    call.encodeTo(sink);
  },
  decodeFrom() {
    throw new ScaleError('INVALID_VARIANT', 'calls in calls are read by the runtime’s definitions');
  },
};

/** An account as calls name a receiver. */
export const toAccount = (account: AccountId): MultiAddress => ({ type: 'Id', value: account });
