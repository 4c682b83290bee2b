/** The chain as JSON-RPC shows it, with what is asked for again and again kept ready. */
import { LRUCache } from 'lru-cache';
import {
  type ChainEvent,
  type Client,
  type PageQuery,
  ReadError,
  type ReadOptions,
  type StatePage,
  type StateView,
} from '../../node/ports/chain.ts';
import type { Log } from '../../node/ports/machine.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { digestItem, type Header, header as headerCodec } from '../../runtime/primitives/header.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import type { Hash, RuntimeVersion } from '../../runtime/primitives/types.ts';
import { discardedState, type RpcError, unknownBlock } from '../server/errors.ts';
import { hexOf, keyOf, withLength } from '../server/hex.ts';
import { RawJson } from '../server/result.ts';
import type { Session } from '../server/session.ts';

const HEADERS = 2_048;
const BODIES_BYTES = 16 * 1024 * 1024;
const METADATA = 16;
/** Longer parameters are no version of the metadata. */
const MAX_METADATA_PARAMETERS = 64;
/** How long one read of a stranger, or of whoever may call unsafe methods, may take. */
const READ_MS = 10_000;
const UNSAFE_READ_MS = 60_000;
/** Bytes of one read's result where the caller has no limit. */
const READ_BYTES = 64 * 1024 * 1024;

/** Reads of states for one caller, which take turns with those of others on threads of their own. */
export interface Reads {
  values(block: Hash, keys: readonly Uint8Array[]): Promise<readonly (Uint8Array | undefined)[]>;
  page(block: Hash, query: PageQuery, maxBytes?: number): Promise<StatePage>;
  prove(block: Hash, keys: readonly Uint8Array[]): Promise<readonly Uint8Array[]>;
}

export const headerJson = (header: Header): string =>
  `{"parentHash":"${hexOf(header.parentHash)}","number":"0x${header.number.toString(16)}",` +
  `"stateRoot":"${hexOf(header.stateRoot)}","extrinsicsRoot":"${hexOf(header.extrinsicsRoot)}",` +
  `"digest":{"logs":[${header.digest.logs.map((log) => `"${hexOf(encode(digestItem, log))}"`).join(',')}]}}`;

export const versionJson = (version: RuntimeVersion): RawJson =>
  new RawJson(
    JSON.stringify({
      specName: version.specName,
      implName: version.implName,
      authoringVersion: version.authoringVersion,
      specVersion: version.specVersion,
      implVersion: version.implVersion,
      apis: version.apis.map(([id, number]) => [hexOf(id), number]),
      transactionVersion: version.transactionVersion,
      systemVersion: version.systemVersion,
      stateVersion: version.systemVersion,
    }),
  );

export class ChainView {
  readonly client: Client;
  readonly #log: Log;
  readonly #headers = new LRUCache<string, RawJson>({ max: HEADERS });
  readonly #encodedHeaders = new LRUCache<string, string>({ max: HEADERS });
  readonly #bodies = new LRUCache<string, readonly string[]>({
    maxSize: BODIES_BYTES,
    sizeCalculation: (body) => body.reduce((sum, each) => sum + each.length, 64),
  });
  readonly #versions = new LRUCache<string, RuntimeVersion>({ max: HEADERS });
  readonly #metadata = new LRUCache<string, Promise<Uint8Array>>({ max: METADATA });

  constructor(client: Client, log: Log) {
    this.client = client;
    this.#log = log;
  }

  /** Events of the chain; what goes wrong in the listener stays here. Returns the unsubscription. */
  follow(listener: (event: ChainEvent) => void): () => void {
    return this.client.events.subscribe((event) => {
      try {
        listener(event);
      } catch (problem) {
        this.#log('error', 'a follower of the chain failed', { problem: String(problem) });
      }
    });
  }

  /** Every change of the best block, by an import or because finality left the former best one behind. */
  followBest(listener: (best: Hash) => void): () => void {
    let last = this.best();
    return this.follow((event) => {
      if (event.type === 'imported' && !event.isNewBest) return;
      const best = event.type === 'imported' ? event.block.hash : this.best();
      if (equalBytes(best, last)) return;
      last = best;
      listener(best);
    });
  }

  best(): Hash {
    return this.client.blocks.info().best.hash;
  }

  /** Throws an {@link RpcError} when the block is unknown or its state gone. */
  state(at: Hash | undefined): StateView {
    const block = at ?? this.best();
    const state = this.client.states.at(block);
    if (state === undefined) throw this.noState(block);
    return state;
  }

  noState(block: Hash): RpcError {
    const known = this.client.blocks.header(block) !== undefined;
    return known ? discardedState(hexOf(block)) : unknownBlock(hexOf(block));
  }

  /** As the legacy methods show it. */
  header(hash: Hash): RawJson | undefined {
    const key = keyOf(hash);
    const cached = this.#headers.get(key);
    if (cached !== undefined) return cached;
    const header = this.client.blocks.header(hash);
    if (header === undefined) return undefined;
    const json = new RawJson(headerJson(header));
    this.#headers.set(key, json);
    return json;
  }

  /** SCALE-encoded, in hex. */
  encodedHeader(hash: Hash): string | undefined {
    const key = keyOf(hash);
    const cached = this.#encodedHeaders.get(key);
    if (cached !== undefined) return cached;
    const header = this.client.blocks.header(hash);
    if (header === undefined) return undefined;
    const hex = hexOf(encode(headerCodec, header));
    this.#encodedHeaders.set(key, hex);
    return hex;
  }

  /** Extrinsics with their length prefixes, in hex. */
  body(hash: Hash): readonly string[] | undefined {
    const key = keyOf(hash);
    const cached = this.#bodies.get(key);
    if (cached !== undefined) return cached;
    const body = this.client.blocks.body(hash)?.map((extrinsic) => hexOf(withLength(extrinsic)));
    if (body !== undefined) this.#bodies.set(key, body);
    return body;
  }

  /** Throws {@link RuntimeCallError}. */
  version(block: Hash): RuntimeVersion {
    const key = keyOf(block);
    const cached = this.#versions.get(key);
    if (cached !== undefined) return cached;
    const version = this.client.runtime.version(block);
    this.#versions.set(key, version);
    return version;
  }

  /** Reads for a caller; errors are {@link RpcError}s. */
  reads(session: Session): Reads {
    const { reads } = this.client;
    const options = this.#options(session);
    const known = async <T>(block: Hash, read: Promise<T>): Promise<T> => {
      try {
        return await read;
      } catch (problem) {
        throw problem instanceof ReadError && problem.code === 'UNKNOWN_BLOCK' ? this.noState(block) : problem;
      }
    };
    return {
      values: (block, keys) => known(block, reads.values(block, keys, options)),
      page: (block, query, maxBytes = options.maxBytes) =>
        known(block, reads.page(block, query, { ...options, maxBytes: Math.min(maxBytes, options.maxBytes) })),
      prove: (block, keys) => known(block, reads.prove(block, keys, options)),
    };
  }

  #options(session: Session): ReadOptions {
    return {
      by: session.caller.usage,
      // Every byte is two digits.
      maxBytes: Math.min(READ_BYTES, session.maxResponse / 2),
      maxMs: session.unsafe ? UNSAFE_READ_MS : READ_MS,
      spent: (ms) => session.charge(ms),
    };
  }

  /** A call of the runtime; metadata, which clients ask for at every block, once a version. */
  call(session: Session, block: Hash, method: string, parameters: Uint8Array): Promise<Uint8Array> {
    const ask = () => this.client.reads.call(block, method, parameters, this.#options(session));
    if (!method.startsWith('Metadata_') || parameters.length > MAX_METADATA_PARAMETERS) return ask();
    const { specName, specVersion, implVersion } = this.version(block);
    const key = `${specName}/${specVersion}/${implVersion}/${method}/${hexOf(parameters)}`;
    const cached = this.#metadata.get(key);
    if (cached !== undefined) return cached;
    const output = ask();
    this.#metadata.set(key, output);
    output.catch(() => this.#metadata.delete(key));
    return output;
  }

  /** Blocks above the finalized one that lead to a head, lower ones first. */
  unfinalized(): readonly { readonly hash: Hash; readonly header: Header }[] {
    const { blocks } = this.client;
    const { finalized } = blocks.info();
    const found = new Map<string, { hash: Hash; header: Header }>();
    for (const leaf of blocks.leaves()) {
      for (let hash = leaf; !found.has(keyOf(hash)); ) {
        const header = blocks.header(hash);
        if (header === undefined || header.number <= finalized.number) break;
        found.set(keyOf(hash), { hash, header });
        hash = header.parentHash;
      }
    }
    return [...found.values()].sort((a, b) => a.header.number - b.header.number);
  }
}
