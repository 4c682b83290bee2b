/** What goes between the main thread and those that read states: few arrays, which change hands without a copy. */
import type { ReadError, RuntimeCallError } from '../ports/chain.ts';
import type { StateRoot } from '../state/state-database.ts';

/** A list of byte strings in one; absent ones have the length −1. */
export interface Packed {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly lengths: Int32Array<ArrayBuffer>;
}

export function pack(list: readonly (Uint8Array | undefined)[]): Packed {
  const lengths = Int32Array.from(list, (each) => each?.length ?? -1);
  const bytes = new Uint8Array(list.reduce((sum, each) => sum + (each?.length ?? 0), 0));
  let at = 0;
  for (const each of list) {
    if (each === undefined) continue;
    bytes.set(each, at);
    at += each.length;
  }
  return { bytes, lengths };
}

export function unpack({ bytes, lengths }: Packed): (Uint8Array | undefined)[] {
  let at = 0;
  return Array.from(lengths, (length) => {
    if (length < 0) return undefined;
    const from = at;
    at += length;
    return bytes.subarray(from, at);
  });
}

/** Lists without absent ones. */
export const unpackAll = (packed: Packed): Uint8Array[] => unpack(packed).filter((each) => each !== undefined);

export type Operation =
  | { readonly type: 'values'; readonly keys: Packed }
  | {
      readonly type: 'page';
      readonly prefix: Uint8Array;
      readonly after: Uint8Array | undefined;
      readonly count: number;
      readonly values: boolean;
    }
  | { readonly type: 'prove'; readonly keys: Packed }
  | { readonly type: 'call'; readonly method: string; readonly parameters: Uint8Array; readonly proof: boolean };

export interface Question {
  readonly root: StateRoot;
  readonly maxBytes: number;
  readonly operation: Operation;
}

/** `lists`: values; keys and values of a page; a proof; the output of a call, and its proof. */
export type Result =
  | { readonly type: 'found'; readonly lists: readonly Packed[]; readonly more: boolean }
  /** The database lacks a node of the state: it is not written yet, or was removed. */
  | { readonly type: 'missing' }
  | { readonly type: 'refused'; readonly code: ReadError['code']; readonly message: string }
  | { readonly type: 'failed'; readonly code: RuntimeCallError['code']; readonly message: string };

export interface Reply {
  readonly result: Result;
  /** Milliseconds that the thread was at it. */
  readonly ms: number;
}

/** The first message of a thread. */
export interface Ready {
  readonly ready: true;
}
