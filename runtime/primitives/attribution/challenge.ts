/** What every dispute has in common: evidence that anybody can hand in, decided at once and in bounded work. */
import type { Codec } from '../scale/codec.ts';
import { decode } from '../scale/codec.ts';
import { ScaleError } from '../scale/io.ts';

/** `NotProven`: the evidence is in order, but shows nothing wrong. All other reasons: the evidence itself is bad. */
export type Dismissal = 'NotProven' | 'BadProof' | 'BadEvidence' | 'BadRecord';

export type Verdict =
  | { readonly type: 'Upheld'; readonly fault: string }
  | { readonly type: 'Dismissed'; readonly reason: Dismissal };

export const upheld = (fault: string): Verdict => ({ type: 'Upheld', fault });
export const dismissed = (reason: Dismissal): Verdict => ({ type: 'Dismissed', reason });
export const provenIf = (proven: boolean, fault: string): Verdict => (proven ? upheld(fault) : dismissed('NotProven'));

/** Decodes committed bytes that may be anything; `undefined` if they are no value of the type. */
export function tryDecode<T>(codec: Codec<T>, bytes: Uint8Array): T | undefined {
  try {
    return decode(codec, bytes);
  } catch (error) {
    if (error instanceof ScaleError) return undefined;
    throw error;
  }
}
