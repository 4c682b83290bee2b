/** How a thread that reads states answers a question. It writes nothing. */
import type { Hashing, Signatures } from '../../runtime/host.ts';
import { compareBytes, startsWith } from '../../runtime/primitives/bytes.ts';
import { type Runtime, RuntimeApiError } from '../../runtime/runtime.ts';
import { runtimeHost } from '../chain/runtime-host.ts';
import type { Ref } from '../state/node.ts';
import { Overlay } from '../state/overlay.ts';
import type { StateRoot } from '../state/state-database.ts';
import { ProofRecorder, type Trie } from '../state/trie.ts';
import { type Operation, pack, type Question, type Result, unpackAll } from './messages.ts';

/** The database lacks a trie node. */
export class MissingNode extends Error {}

export interface AnswerPorts {
  readonly trie: Trie;
  readonly hashing: Hashing;
  readonly signatures: Signatures;
  readonly runtime: () => Runtime;
  /** The root node, undefined for the empty state. */
  rootOf(root: StateRoot): Ref | undefined;
}

const MAX_MESSAGE = 1_000;
const NOTHING = new Uint8Array();
const tooLarge: Result = { type: 'refused', code: 'TOO_LARGE', message: 'the result is larger than allowed' };

class TooLarge extends Error {}

/** Counts bytes against a limit. */
function counter(maxBytes: number): (bytes: number) => void {
  let left = maxBytes;
  return (bytes) => {
    left -= bytes;
    if (left < 0) throw new TooLarge();
  };
}

export function answer(ports: AnswerPorts, question: Question): Result {
  try {
    return read(ports, ports.rootOf(question.root), question.operation, question.maxBytes);
  } catch (problem) {
    if (problem instanceof MissingNode) return { type: 'missing' };
    if (problem instanceof TooLarge) return tooLarge;
    const message = (problem as Error).message.slice(0, MAX_MESSAGE);
    return { type: 'failed', code: problem instanceof RuntimeApiError ? problem.code : 'FAILED', message };
  }
}

function read(ports: AnswerPorts, root: Ref | undefined, operation: Operation, maxBytes: number): Result {
  const { trie } = ports;
  switch (operation.type) {
    case 'values': {
      const count = counter(maxBytes);
      const values = unpackAll(operation.keys).map((key) => {
        const value = trie.get(root, key);
        count(value?.length ?? 0);
        return value;
      });
      return { type: 'found', lists: [pack(values)], more: false };
    }
    case 'page':
      return page(trie, root, operation, maxBytes);
    case 'prove': {
      const proof = trie.prove(root, unpackAll(operation.keys));
      if (proof.reduce((sum, node) => sum + node.length, 0) > maxBytes) return tooLarge;
      return { type: 'found', lists: [pack(proof)], more: false };
    }
    case 'call':
      return call(ports, root, operation, maxBytes);
  }
}

function page(
  trie: Trie,
  root: Ref | undefined,
  { prefix, after, count, values }: Operation & { readonly type: 'page' },
  maxBytes: number,
): Result {
  const keys: Uint8Array[] = [];
  const found: Uint8Array[] = [];
  let left = maxBytes;
  let more = false;
  const take = (key: Uint8Array, value: Uint8Array | undefined): boolean => {
    left -= key.length + (values ? (value?.length ?? 0) : 0);
    more = keys.length === count || (left < 0 && keys.length > 0);
    if (more) return false;
    keys.push(key);
    found.push(values ? (value ?? NOTHING) : NOTHING);
    return true;
  };
  let last = after;
  if (last === undefined || compareBytes(last, prefix) < 0) {
    last = prefix;
    const own = trie.get(root, prefix);
    if (own !== undefined) take(prefix, own);
  }
  if (!more) {
    for (
      let key = trie.nextKey(root, last);
      key !== undefined && startsWith(key, prefix);
      key = trie.nextKey(root, key)
    ) {
      if (!take(key, values ? trie.get(root, key) : undefined)) break;
    }
  }
  return { type: 'found', lists: [pack(keys), pack(found)], more };
}

function call(
  { trie, hashing, signatures, runtime }: AnswerPorts,
  root: Ref | undefined,
  { method, parameters, proof }: Operation & { readonly type: 'call' },
  maxBytes: number,
): Result {
  const recorder = proof ? new ProofRecorder(trie) : undefined;
  const host = runtimeHost(new Overlay(trie, root, recorder), hashing, signatures, () => {});
  const output = runtime().call(host, method, parameters);
  const nodes = recorder?.nodes() ?? [];
  if (nodes.reduce((sum, node) => sum + node.length, output.length) > maxBytes) return tooLarge;
  return { type: 'found', lists: [pack([output]), pack(nodes)], more: false };
}
