/**
 * What nodes have said of their chains, kept over their restarts: a block that was told is one that others may count on, and
 * a transaction in a final one was told to whoever sent it.
 */
import { createHashing } from '../../../node/crypto/hashing.ts';
import { withoutLength } from '../../../rpc/hex.ts';
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

/** Variant, engine, and the length of what follows. */
const AURA_SLOT = '0x066175726120';
function slotOf({ digest }: HeaderJson): number {
  const log = digest.logs.find((each) => each.startsWith(AURA_SLOT));
  if (log === undefined) throw new Error('a header without a slot');
  return Number(Buffer.from(log.slice(AURA_SLOT.length), 'hex').readBigUInt64LE());
}

export class Heads {
  /** By hash. */
  readonly told = new Map<string, number>();
  /** By height. */
  readonly final = new Map<number, string>();
  /** Height of the final block that a transaction was shown in, by the hash of the transaction. */
  readonly transactions = new Map<string, number>();
  readonly #slots = new Map<number, string>();
  /** Two blocks of one slot, two final blocks of one height. */
  readonly faults: string[] = [];

  async follow(client: RpcClient): Promise<void> {
    await client.subscribe<HeaderJson>('chain_subscribeAllHeads', [], (head) => this.#note(head));
    await client.subscribe<HeaderJson>('chain_subscribeFinalizedHeads', [], (head) => {
      const height = Number(head.number);
      const hash = hashOf(head);
      const before = this.final.get(height);
      if (before !== undefined && before !== hash) this.faults.push(`two final blocks of height ${height}`);
      this.final.set(height, hash);
      if (height > 0) this.#note(head);
      // A node that is killed meanwhile has shown nothing.
      this.#noteTransactions(client, height, hash).catch(() => {});
    });
  }

  async #noteTransactions(client: RpcClient, height: number, hash: string): Promise<void> {
    for (const each of await transactionsOf(client, hash)) this.transactions.set(each, height);
  }

  #note(head: HeaderJson): void {
    if (Number(head.number) === 0) return;
    const hash = hashOf(head);
    this.told.set(hash, Number(head.number));
    this.slot(slotOf(head), hash);
  }

  /** A slot has one author: two blocks in it are two by one key. */
  slot(slot: number, hash: string): void {
    const before = this.#slots.get(slot);
    if (before !== undefined && before !== hash) this.faults.push(`two blocks in slot ${slot}`);
    this.#slots.set(slot, hash);
  }

  get count(): number {
    return this.#slots.size;
  }
}
