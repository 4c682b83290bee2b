/**
 * Warp proofs: from one authority set to the next by the blocks that changed it, each justified by the set before, up to a
 * block that is final now. Whoever trusts the first set needs nothing between those blocks.
 */
import type { Blocks } from '../../node/ports/chain.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { GRANDPA_ENGINE, type Header, headerHash } from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { AuthorityChangeError, type AuthoritySet, changeIn, nextSet, setIdAt, voterSetOf } from './authorities.ts';
import { type JustificationContext, JustificationError, verifyJustification } from './justification.ts';
import { blockId, type Justification, justificationCodec } from './messages.ts';

export interface WarpFragment {
  readonly header: Header;
  readonly justification: Justification;
}
/** Every block but the last changed the set; `finished`: the last is the newest that is known to be final. */
export interface WarpProof {
  readonly fragments: readonly WarpFragment[];
  readonly finished: boolean;
}

/** The justification that is stored for a block, if there is one. */
function storedJustification(blocks: Blocks, hash: Hash): Justification | undefined {
  const proof = blocks.justifications(hash)?.find(([engine]) => equalBytes(engine, GRANDPA_ENGINE));
  return proof && decode(justificationCodec, proof[1]);
}

/**
 * What leads from the final block `begin` to the newest one, as far as `maxBytes` go. Undefined when `begin` is not on the
 * finalized chain, or when this node has not kept what is needed.
 */
export function proveWarp(blocks: Blocks, set: AuthoritySet, begin: Hash, maxBytes: number): WarpProof | undefined {
  const first = blocks.header(begin);
  if (first === undefined || !blocks.isFinalized(begin)) return undefined;
  const { finalized } = blocks.info();
  const fragments: WarpFragment[] = [];
  let size = 0;
  const add = (hash: Hash): boolean => {
    const header = blocks.header(hash);
    const justification = storedJustification(blocks, hash);
    if (header === undefined || justification === undefined) return false;
    fragments.push({ header, justification });
    size += encode(justificationCodec, justification).length + 256;
    return true;
  };
  // A block that changed the set is final by the set before it, so what comes after `begin` starts with that very set.
  for (let id = setIdAt(set, first.number + 1); id < set.setChanges.length; id++) {
    const hash = blocks.hashOf(set.setChanges[id]!);
    if (hash === undefined || !add(hash)) return undefined;
    if (size >= maxBytes) return { fragments, finished: equalBytes(hash, finalized.hash) };
  }
  const last = fragments.at(-1)?.header.number ?? first.number;
  // The newest block has no proof of its own when another one above it was justified and is not kept: then it is left out.
  if (finalized.number > last) add(finalized.hash);
  return { fragments, finished: true };
}

export interface WarpStep {
  readonly set: AuthoritySet;
  /** The last block of the proof, and its hash. Undefined for a proof without any. */
  readonly last: { readonly header: Header; readonly hash: Hash } | undefined;
}

/** Follows a proof from the set that is in charge after `from`. Throws {@link JustificationError}. */
export function verifyWarp(
  set: AuthoritySet,
  from: number,
  proof: WarpProof,
  context: Pick<JustificationContext, 'hashing' | 'signatures'>,
): WarpStep {
  let current = set;
  let number = from;
  let last: WarpStep['last'];
  for (const [i, { header, justification }] of proof.fragments.entries()) {
    if (header.number <= number) throw new JustificationError('BAD_ANCESTRY', 'its blocks do not rise');
    const hash = headerHash(context.hashing, header);
    verifyJustification(
      encode(justificationCodec, justification),
      { ...context, setId: current.setId, voters: voterSetOf(current.authorities) },
      { hash: blockId(hash), number: header.number },
    );
    const change = announcedBy(header);
    if (change !== undefined) current = nextSet(current, header.number, change);
    else if (i < proof.fragments.length - 1 || !proof.finished) {
      throw new JustificationError('BAD_ANCESTRY', `block ${header.number} in the middle of it changes nothing`);
    }
    number = header.number;
    last = { header, hash };
  }
  return { set: current, last };
}

function announcedBy(header: Header): ReturnType<typeof changeIn> {
  try {
    return changeIn(header);
  } catch (problem) {
    if (problem instanceof AuthorityChangeError) throw new JustificationError('MALFORMED', problem.message);
    throw problem;
  }
}
