/**
 * What nodes say of their chains over JSON-RPC: a block that was told is one that others may count on, and a transaction in a
 * final one was told to whoever sent it.
 */
import { createHashing } from '../../../node/crypto/hashing.ts';
import { withoutLength } from '../../../rpc/server/hex.ts';
import { concatBytes, fromHex, toHex } from '../../../runtime/primitives/bytes.ts';
import { compact, encode, u32 } from '../../../runtime/primitives/scale/codec.ts';
import type { RpcClient } from '../../bench/support/rpc-client.ts';

interface HeaderJson {
  readonly parentHash: string;
  readonly number: string;
  readonly stateRoot: string;
  readonly extrinsicsRoot: string;
  readonly digest: { readonly logs: readonly string[] };
}

const hashing = createHashing();
const number = (value: number): Uint8Array => encode(compact(u32), value);

export function hashOf({ parentHash, number: height, stateRoot, extrinsicsRoot, digest }: HeaderJson): string {
  const logs = digest.logs.map(fromHex);
  const roots = [fromHex(stateRoot), fromHex(extrinsicsRoot)];
  return toHex(
    hashing.blake2_256(
      concatBytes(fromHex(parentHash), number(Number(height)), ...roots, number(logs.length), ...logs),
    ),
  );
}

/** Of the first byte of an extrinsic: somebody signed it. Inherents, which the author makes, are nobody's to miss. */
const SIGNED = 0x80;

/** Hashes of the signed extrinsics of a block as a node shows it; empty where it has none. */
export async function transactionsOf(client: RpcClient, block: string): Promise<readonly string[]> {
  const shown = await client.call<{ block: { extrinsics: string[] } } | null>('chain_getBlock', block);
  return (shown?.block.extrinsics ?? [])
    .map(fromHex)
    .filter((each) => (withoutLength(each)?.[0] ?? 0) >= SIGNED)
    .map(transactionHash);
}

/** `extrinsic`: with its length prefix, as JSON-RPC shows it. */
export const transactionHash = (extrinsic: Uint8Array): string => toHex(hashing.blake2_256(extrinsic));

/** Height of a block, and hash of the one below it, in hex. */
export interface Place {
  readonly number: number;
  readonly parent: string;
}

/** What one node said in one of its lives. */
export interface Told {
  /** By hash. */
  readonly blocks: ReadonlyMap<string, Place>;
  /** Hash by height. */
  readonly final: ReadonlyMap<number, string>;
}

export class Heads {
  /** Hash by height, by whichever node. */
  readonly final = new Map<number, string>();
  /** Hashes of the transactions that were shown in a final block, by its height. */
  readonly transactions = new Map<number, readonly string[]>();
  /** All blocks that any node told of, by hash. */
  readonly blocks = new Map<string, Place>();
  /** Two final blocks of one height. */
  readonly faults: string[] = [];

  async follow(client: RpcClient): Promise<Told> {
    const blocks = new Map<string, Place>();
    const final = new Map<number, string>();
    await client.subscribe<HeaderJson>('chain_subscribeAllHeads', [], (head) => {
      const hash = hashOf(head);
      const place = { number: Number(head.number), parent: head.parentHash };
      blocks.set(hash, place);
      this.blocks.set(hash, place);
    });
    await client.subscribe<HeaderJson>('chain_subscribeFinalizedHeads', [], (head) => {
      const height = Number(head.number);
      const hash = hashOf(head);
      const before = this.final.get(height);
      if (before !== undefined && before !== hash) this.faults.push(`two final blocks of height ${height}`);
      this.final.set(height, hash);
      final.set(height, hash);
      // A node that is killed meanwhile has shown nothing.
      transactionsOf(client, hash).then(
        (shown) => this.transactions.set(height, shown),
        () => {},
      );
    });
    return { blocks, final };
  }
}
