/** What two states have otherwise, found without reading what they share. */
import { compareBytes, concatBytes } from '../../runtime/primitives/bytes.ts';
import { bytesOf, joinPath, type Nibbles, nibblesOf, type Ref } from './node.ts';
import { commonPrefix, sameValue, type Trie } from './trie.ts';

export interface Difference {
  readonly key: Uint8Array;
  /** Undefined where the state has no such key. */
  readonly before: Uint8Array | undefined;
  readonly after: Uint8Array | undefined;
}

/** Of the keys that begin with `prefix`, those with other values, in ascending order: O(d log n) nodes for d of n keys. */
export function* differences(
  trie: Trie,
  before: Ref | undefined,
  after: Ref | undefined,
  prefix: Uint8Array,
): Generator<Difference> {
  const path = nibblesOf(prefix);
  yield* between(trie, under(trie, before, path), under(trie, after, path), path);
}

/** The same node without the first `count` nibbles of its partial key, as it would hang that much lower. */
function lowered(trie: Trie, ref: Ref, path: Nibbles, count: number): Ref {
  if (count === 0) return ref;
  const node = trie.open(ref, path);
  return { merkle: undefined, version: 0, node: { ...node, partial: node.partial.subarray(count) } };
}

/** What of a trie begins with `wanted`, as it would hang there. */
function under(trie: Trie, root: Ref | undefined, wanted: Nibbles): Ref | undefined {
  let path: Nibbles = new Uint8Array();
  for (let ref = root; ref !== undefined; ) {
    const { partial, children } = trie.open(ref, path);
    const left = wanted.subarray(path.length);
    const same = commonPrefix(partial, 0, left, 0);
    if (same === left.length) return lowered(trie, ref, path, same);
    if (same < partial.length) return undefined;
    const nibble = left[same]!;
    path = joinPath(path, partial, nibble);
    ref = children?.[nibble];
  }
  return undefined;
}

function* between(trie: Trie, before: Ref | undefined, after: Ref | undefined, path: Nibbles): Generator<Difference> {
  if (before === after) return;
  if (before !== undefined && after !== undefined && compareBytes(trie.merkle(before), trie.merkle(after)) === 0)
    return;
  const old = before && trie.open(before, path);
  const now = after && trie.open(after, path);
  // They are compared at the first place where either has a value or branches.
  const depth = old && now ? commonPrefix(old.partial, 0, now.partial, 0) : (old ?? now)!.partial.length;
  const partial = (old ?? now)!.partial.subarray(0, depth);
  const here = concatBytes(path, partial);
  const oldValue = old?.partial.length === depth ? old.value : undefined;
  const newValue = now?.partial.length === depth ? now.value : undefined;
  if (!sameValue(oldValue, newValue)) yield { key: bytesOf(here), before: oldValue, after: newValue };
  const child = (ref: Ref | undefined, nibble: number): Ref | undefined => {
    if (ref === undefined) return undefined;
    const node = trie.open(ref, path);
    if (node.partial.length === depth) return node.children?.[nibble];
    return node.partial[depth] === nibble ? lowered(trie, ref, path, depth + 1) : undefined;
  };
  for (let nibble = 0; nibble < 16; nibble++) {
    yield* between(trie, child(before, nibble), child(after, nibble), joinPath(path, partial, nibble));
  }
}
