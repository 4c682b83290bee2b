/**
 * Justifications: a commit with the headers that tie its precommits together, so that someone with nothing but headers and
 * the authorities can see that a block is final (`sc-consensus-grandpa::justification`).
 */
import type { Hashing, Signatures } from '../../runtime/host.ts';
import { type Header, headerHash } from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { lowest, validateCommit } from './commit.ts';
import { blockId, idBytes, type Justification, justificationCodec, signingPayload } from './messages.ts';
import type { VoterSet } from './voter-set.ts';
import type { Ancestry, BlockId, Commit, Target } from './votes.ts';

export class JustificationError extends Error {
  readonly code:
    | 'MALFORMED'
    /** It justifies some other block. */
    | 'WRONG_TARGET'
    /** Its precommits do not finalize its target. */
    | 'NOT_FINAL'
    | 'BAD_SIGNATURE'
    /** Headers that connect nothing, or a header that is missing. */
    | 'BAD_ANCESTRY';
  constructor(code: JustificationError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** The ancestry that a set of headers shows. */
class HeaderAncestry implements Ancestry {
  readonly #parents: ReadonlyMap<BlockId, BlockId>;

  constructor(parents: ReadonlyMap<BlockId, BlockId>) {
    this.#parents = parents;
  }

  between(base: Target, block: Target): readonly BlockId[] | undefined {
    const out: BlockId[] = [];
    let at = block.hash;
    for (let number = block.number; number > base.number; number--) {
      if (at !== block.hash) out.push(at);
      const parent = this.#parents.get(at);
      if (parent === undefined) return undefined;
      at = parent;
    }
    return at === base.hash ? out : undefined;
  }

  includes(base: Target, block: Target): boolean {
    return this.between(base, block) !== undefined;
  }
}

export interface JustificationContext {
  readonly setId: number;
  readonly voters: VoterSet;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly signatures: Pick<Signatures, 'verifyEd25519'>;
}

/** Verifies an encoded justification of `target` (of whatever block it names if left out). Throws {@link JustificationError}. */
export function verifyJustification(
  bytes: Uint8Array,
  context: JustificationContext,
  target?: Target,
): { readonly round: number; readonly target: Target } {
  let justification: Justification;
  try {
    justification = decode(justificationCodec, bytes);
  } catch (error) {
    throw new JustificationError('MALFORMED', (error as Error).message);
  }
  const { commit, round } = justification;
  if (target !== undefined && (commit.target.hash !== target.hash || commit.target.number !== target.number)) {
    throw new JustificationError('WRONG_TARGET', `it justifies block ${commit.target.number} ${commit.target.hash}`);
  }
  if (commit.precommits.length > 2 * context.voters.size) {
    throw new JustificationError(
      'NOT_FINAL',
      `${commit.precommits.length} precommits of ${context.voters.size} voters`,
    );
  }
  const headers = new Map<BlockId, Header>(
    justification.votesAncestries.map((each) => [blockId(headerHash(context.hashing, each)), each]),
  );
  const ancestry = new HeaderAncestry(new Map([...headers].map(([id, each]) => [id, blockId(each.parentHash)])));
  if (!validateCommit(commit, context.voters, ancestry).valid) {
    throw new JustificationError('NOT_FINAL', 'the precommits do not finalize the target');
  }

  const base = lowest(commit.precommits)!;
  const used = new Set<BlockId>();
  for (const precommit of commit.precommits) {
    const payload = signingPayload('precommit', precommit.target, round, context.setId);
    if (!context.signatures.verifyEd25519(precommit.signature, payload, idBytes(precommit.voter))) {
      throw new JustificationError('BAD_SIGNATURE', `signature of ${precommit.voter}`);
    }
    if (precommit.target.hash === base.hash) continue;
    const between = ancestry.between(base, precommit.target);
    const header = headers.get(precommit.target.hash);
    if (between === undefined || header === undefined || header.number !== precommit.target.number) {
      throw new JustificationError('BAD_ANCESTRY', `precommit for ${precommit.target.hash} is not connected`);
    }
    used.add(precommit.target.hash);
    for (const id of between) used.add(id);
  }
  if (used.size !== justification.votesAncestries.length) {
    throw new JustificationError('BAD_ANCESTRY', 'headers that no precommit needs');
  }
  return { round, target: commit.target };
}

/** Encodes a commit as a justification; `header` looks up blocks of this node. Throws {@link JustificationError}. */
export function buildJustification(
  round: number,
  commit: Commit,
  header: (id: BlockId) => Header | undefined,
): Uint8Array {
  const base = lowest(commit.precommits);
  if (base === undefined) throw new JustificationError('NOT_FINAL', 'a commit without precommits');
  const ancestries = new Map<BlockId, Header>();
  for (const { target } of commit.precommits) {
    for (let at = target.hash; at !== base.hash && !ancestries.has(at); ) {
      const found = header(at);
      if (found === undefined || found.number <= base.number) {
        throw new JustificationError('BAD_ANCESTRY', `${target.hash} is not known to descend from ${base.hash}`);
      }
      ancestries.set(at, found);
      at = blockId(found.parentHash);
    }
  }
  return encode(justificationCodec, {
    round,
    commit: { target: commit.target, precommits: [...commit.precommits] },
    votesAncestries: [...ancestries.values()],
  });
}
