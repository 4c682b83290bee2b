/** A thread that reads states: answers questions one after the other, from the database that the main thread writes. */
import { parentPort, workerData } from 'node:worker_threads';
import { LRUCache } from 'lru-cache';
import type { Runtime } from '../../runtime/runtime.ts';
import { newRuntime } from '../chain/genesis.ts';
import { createHashing } from '../crypto/hashing.ts';
import { createSignatures } from '../crypto/signatures.ts';
import { COLUMN, DatabaseReader } from '../database/database.ts';
import { latin1 } from '../latin1.ts';
import { locationOf, restoreNode, type TrieNode } from '../state/node.ts';
import { Trie } from '../state/trie.ts';
import { answer, MissingNode } from './answer.ts';
import type { Question, Ready, Reply } from './messages.ts';

/** Bytes of trie nodes, as they are stored, that are kept in memory; as objects they are several times that. */
const CACHE_BYTES = 8 * 2 ** 20;

const port = parentPort;
if (port === null) throw new Error('reading-thread.ts runs as a worker thread only');
const { path } = workerData as { readonly path: string };
const database = await DatabaseReader.open(path);
const hashing = createHashing();
const signatures = await createSignatures();

const nodes = new LRUCache<string, TrieNode>({ maxSize: CACHE_BYTES });
const trie = new Trie(hashing.blake2_256, (place, ref) => {
  const location = locationOf(place, ref.version);
  const name = latin1(location);
  const known = nodes.get(name);
  if (known !== undefined) return known;
  const stored = database.get(COLUMN.nodes, location);
  if (stored === undefined) throw new MissingNode();
  const node = restoreNode(stored);
  nodes.set(name, node, { size: stored.length + 64 });
  return node;
});
let runtime: Runtime | undefined;

port.on('message', (question: Question) => {
  const start = performance.now();
  const result = answer(
    {
      ...{ trie, hashing, signatures },
      runtime: () => {
        runtime ??= newRuntime();
        return runtime;
      },
      rootOf: ({ version, merkle }) => (merkle === undefined ? undefined : { version, merkle, node: undefined }),
    },
    question,
  );
  const reply: Reply = { result, ms: performance.now() - start };
  const lists = result.type === 'found' ? result.lists : [];
  port.postMessage(
    reply,
    lists.flatMap(({ bytes, lengths }) => [bytes.buffer, lengths.buffer]),
  );
});

port.postMessage({ ready: true } satisfies Ready);
