/**
 * Proofs of reads: some of a trie's nodes, by which one who knows only the root can tell what keys are. Nothing in a proof is
 * believed that the root does not lead to by hashes, so a proof can be too small or no proof at all, but never false.
 */
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { latin1 } from '../latin1.ts';
import { decodeNode, type Hash256, type Ref, type TrieNode } from './node.ts';
import { type Load, Trie } from './trie.ts';

/** `INCOMPLETE`: the proof lacks a node or value that the question needs; `MALFORMED`: it leads to bytes that are none. */
export class ProofError extends Error {
  readonly code: 'INCOMPLETE' | 'MALFORMED';
  constructor(code: ProofError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

const HASH_LENGTH = 32;
/** How deep a node may hang, in nibbles: keys of 2 KiB. It bounds what a made-up chain of nodes can make a reader do. */
const MAX_DEPTH = 4_096;

export interface ProvenTrie {
  /** Reads whatever the proof shows; throws {@link ProofError} at what it does not. */
  readonly trie: Trie;
  readonly root: Ref | undefined;
}

/** The part of the trie with root hash `root` that `nodes` (encoded nodes and hashed values, in any order) show. */
export function provenTrie(hash: Hash256, root: Uint8Array, nodes: Iterable<Uint8Array>): ProvenTrie {
  const byHash = new Map<string, Uint8Array>();
  for (const each of nodes) byHash.set(latin1(hash(each)), each);
  const find = (wanted: Uint8Array, what: string): Uint8Array => {
    const found = byHash.get(latin1(wanted));
    if (found === undefined) throw new ProofError('INCOMPLETE', `the proof lacks a ${what}`);
    return found;
  };
  const load: Load = (path, ref) => {
    if (path.length > MAX_DEPTH) throw new ProofError('MALFORMED', 'the proof goes deeper than any key');
    const merkle = ref.merkle!;
    const node = partialNode(merkle.length === HASH_LENGTH ? find(merkle, 'node') : merkle, find);
    ref.node = node;
    return node;
  };
  const trie = new Trie(hash, load);
  const isEmpty = latin1(trie.rootHash(undefined)) === latin1(root);
  return { trie, root: isEmpty ? undefined : { merkle: root, version: 0, node: undefined } };
}

function partialNode(encoded: Uint8Array, find: (hash: Uint8Array, what: string) => Uint8Array): TrieNode {
  try {
    const { partial, value, children } = decodeNode(encoded);
    const refs = children?.map((merkle): Ref | undefined => merkle && { merkle, version: 0, node: undefined });
    const shape = { partial, children: refs };
    if (value === undefined) return { ...shape, hashed: false, value: undefined };
    if ('inline' in value) return { ...shape, hashed: false, value: value.inline };
    // Whether the value is in the proof matters only to one who asks for it.
    return {
      ...shape,
      hashed: true,
      get value() {
        return find(value.hash, 'value');
      },
    };
  } catch (problem) {
    if (problem instanceof ScaleError) throw new ProofError('MALFORMED', problem.message, { cause: problem });
    throw problem;
  }
}

/**
 * What `keys` are under the root: their values in the same order, undefined for what is proven not to be there
 * (`sp_state_machine::read_proof_check`). Throws {@link ProofError}.
 */
export function verifyProof(
  hash: Hash256,
  root: Uint8Array,
  nodes: Iterable<Uint8Array>,
  keys: readonly Uint8Array[],
): (Uint8Array | undefined)[] {
  const proven = provenTrie(hash, root, nodes);
  return keys.map((key) => proven.trie.get(proven.root, key));
}
