/**
 * The state of one block as a stranger tells it: every value comes with a proof that its trie's root, which stands in the
 * block's header, leads to it. Who knows the block's hash from elsewhere need not trust whom it asks.
 */
import { JsonRpcError } from '../../rpc/client/json-rpc.ts';
import type { Hashing, Host, Signatures } from '../../runtime/host.ts';
import { equalBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { digestItem, type Header, headerHash } from '../../runtime/primitives/header.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { verifyProof } from '../state/proof.ts';
import { stateReader } from './state-reader.ts';

export class ProvenStateError extends Error {
  readonly code: 'UNKNOWN_BLOCK' | 'OTHER_HEADER' | 'TOO_MANY_READS';
  constructor(code: ProvenStateError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** JSON-RPC, as far as it is needed here. */
interface Rpc {
  call<T>(method: string, ...params: readonly unknown[]): Promise<T>;
}

interface JsonHeader {
  readonly parentHash: string;
  readonly number: string;
  readonly stateRoot: string;
  readonly extrinsicsRoot: string;
  readonly digest: { readonly logs: readonly string[] };
}

/** A key that has not been asked for yet. */
class Unread extends Error {
  readonly key: Uint8Array;
  constructor(key: Uint8Array) {
    super(`the storage under ${toHex(key)} has not been read`);
    this.key = key;
  }
}

const MAX_READS = 256;

export class ProvenState {
  readonly block: Hash;
  readonly header: Header;
  readonly #rpc: Rpc;
  readonly #hashing: Hashing;
  readonly #signatures: Signatures;
  readonly #values = new Map<string, Uint8Array | undefined>();

  private constructor(rpc: Rpc, hashing: Hashing, signatures: Signatures, block: Hash, header: Header) {
    this.#rpc = rpc;
    this.#hashing = hashing;
    this.#signatures = signatures;
    this.block = block;
    this.header = header;
  }

  /** After `block` (default: the last one that the node calls final). Rejects with {@link ProvenStateError}. */
  static async at(rpc: Rpc, hashing: Hashing, signatures: Signatures, block?: Hash): Promise<ProvenState> {
    const wanted = block ?? asHash(fromHex(await rpc.call<string>('chain_getFinalizedHead')));
    const told = await rpc.call<JsonHeader | null>('chain_getHeader', toHex(wanted));
    if (told === null) throw new ProvenStateError('UNKNOWN_BLOCK', `the node does not know block ${toHex(wanted)}`);
    const header: Header = {
      parentHash: asHash(fromHex(told.parentHash)),
      number: Number(told.number),
      stateRoot: asHash(fromHex(told.stateRoot)),
      extrinsicsRoot: asHash(fromHex(told.extrinsicsRoot)),
      digest: { logs: told.digest.logs.map((each) => decode(digestItem, fromHex(each))) },
    };
    if (!equalBytes(headerHash(hashing, header), wanted)) {
      throw new ProvenStateError('OTHER_HEADER', 'the node’s header does not have the hash that was asked for');
    }
    return new ProvenState(rpc, hashing, signatures, wanted, header);
  }

  /** Runs `body` with the state until it has read everything that it wants. Rejects also with a ProofError. */
  async with<T>(body: (host: Host) => T | Promise<T>): Promise<T> {
    for (let reads = 0; reads < MAX_READS; reads++) {
      try {
        return await body(this.#reader());
      } catch (problem) {
        if (!(problem instanceof Unread)) throw problem;
        await this.#read(problem.key);
      }
    }
    throw new ProvenStateError('TOO_MANY_READS', `more than ${MAX_READS} reads`);
  }

  #reader(): Host {
    const get = (key: Uint8Array): Uint8Array | undefined => {
      const name = toHex(key);
      if (!this.#values.has(name)) throw new Unread(key);
      return this.#values.get(name);
    };
    const nextKey = (): never => {
      throw new Error('no iteration over proven state');
    };
    return stateReader({ root: this.header.stateRoot, get, nextKey }, this.#hashing, this.#signatures);
  }

  async #read(key: Uint8Array): Promise<void> {
    const name = toHex(key);
    let proof: readonly string[];
    try {
      ({ proof } = await this.#rpc.call<{ proof: string[] }>('state_getReadProof', [name], toHex(this.block)));
    } catch (problem) {
      if (!(problem instanceof JsonRpcError)) throw problem;
      throw new ProvenStateError('UNKNOWN_BLOCK', `the node no longer has the state of ${toHex(this.block)}`);
    }
    const { blake2_256 } = this.#hashing;
    const [value] = verifyProof(blake2_256, this.header.stateRoot, proof.map(fromHex), [key]);
    this.#values.set(name, value);
  }
}
