/** Reads a stopped node's database from end to end and says what it holds; throws when two parts of it disagree. */
import { decodeRecord } from '../../../consensus/grandpa/record.ts';
import type { VoterRecord } from '../../../consensus/grandpa/voter.ts';
import { BlockStore } from '../../../node/blocks/block-store.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { COLUMN, Database } from '../../../node/database/database.ts';
import { StateDatabase } from '../../../node/state/state-database.ts';
import { extrinsicsRoot, trieRoot } from '../../../node/state/trie.ts';
import { withLength } from '../../../rpc/server/hex.ts';
import { accountInfo } from '../../../runtime/pallets/standard/system.ts';
import { concatBytes, equalBytes, startsWith, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { decode, u64, u128 } from '../../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../../runtime/primitives/types.ts';
import { transactionHash } from './heads.ts';

export interface Found {
  readonly best: number;
  readonly finalized: number;
  /** Hash of the best chain's block by height, in hex, from the lowest one on that was read. */
  readonly chain: ReadonlyMap<number, string>;
  /** Those, and the blocks of forks. */
  readonly blocks: ReadonlySet<string>;
  /** Height of the best chain's block that a transaction is in, by the transaction's hash in hex. */
  readonly transactions: ReadonlyMap<string, number>;
  readonly lastSlot: number | undefined;
  readonly votes: VoterRecord | undefined;
}

const hashing = createHashing();
const item = (pallet: string, name: string): Uint8Array =>
  concatBytes(hashing.twox128(utf8(pallet)), hashing.twox128(utf8(name)));
const ACCOUNT = item('System', 'Account');
const ISSUANCE = item('Balances', 'TotalIssuance');

function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`the database is not consistent: ${what}`);
}

/**
 * `directory`: that of the database; `from`: the lowest height whose block is read. Undefined when the node was killed before
 * it had written its first block.
 */
export async function inspect(directory: string, from = 0): Promise<Found | undefined> {
  const database = await Database.open(directory);
  try {
    const states = await StateDatabase.open(database, hashing.blake2_256, { pruning: 'archive' });
    const blocks = await BlockStore.open(database, { pruning: 'archive' });
    if (blocks === undefined) {
      check(database.genesis() === undefined, 'a chain that has begun lacks its best or final block');
      return undefined;
    }
    const { best, finalized } = blocks.info();
    const chain = new Map<number, string>();
    const seen = new Set<string>();
    const transactions = new Map<string, number>();
    let parent: Hash | undefined;
    for (let number = from; number <= best.number; number++) {
      const hash = blocks.hashOf(number);
      check(hash !== undefined, `height ${number} has no block`);
      const header = blocks.header(hash);
      const body = blocks.body(hash);
      check(header !== undefined && body !== undefined, `block ${number} lacks its header or body`);
      check(
        parent === undefined || equalBytes(header.parentHash, parent),
        `block ${number} is not on top of its parent`,
      );
      const root = extrinsicsRoot(hashing.blake2_256, body);
      check(equalBytes(root, header.extrinsicsRoot), `the body of block ${number} is another one`);
      for (const each of body) transactions.set(transactionHash(withLength(each)), number);
      chain.set(number, toHex(hash));
      seen.add(toHex(hash));
      parent = hash;
    }
    check(equalBytes(parent!, best.hash), 'the best chain does not end in the best block');
    check(blocks.isFinalized(finalized.hash), 'the final block is not on the best chain');
    for (const leaf of blocks.leaves()) {
      for (
        let at: Hash | undefined = leaf;
        at !== undefined && !seen.has(toHex(at));
        at = blocks.header(at)!.parentHash
      ) {
        check(blocks.header(at) !== undefined, 'a fork hangs in the air');
        seen.add(toHex(at));
      }
    }
    for (const { hash, number } of [finalized, best]) {
      const state = states.at(hash);
      check(state !== undefined, `the state of block ${number} is gone`);
      const entries: [Uint8Array, Uint8Array][] = [];
      for (let key = state.nextKey(new Uint8Array()); key !== undefined; key = state.nextKey(key)) {
        entries.push([key, state.get(key)!]);
      }
      const root = trieRoot(hashing.blake2_256, entries, 1);
      check(equalBytes(root, blocks.header(hash)!.stateRoot), `the state of block ${number} has another root`);
      let held = 0n;
      for (const [key, value] of entries) {
        if (!startsWith(key, ACCOUNT)) continue;
        const { data } = decode(accountInfo, value);
        held += data.free + data.reserved;
      }
      check(decode(u128, state.get(ISSUANCE)!) === held, `after block ${number} balances are not the total issuance`);
    }
    const slot = database.get(COLUMN.consensus, utf8('aura/last-slot'));
    const record = database.get(COLUMN.consensus, utf8('grandpa/voter'));
    return {
      best: best.number,
      finalized: finalized.number,
      chain,
      blocks: seen,
      transactions,
      lastSlot: slot && Number(decode(u64, slot)),
      votes: record && decodeRecord(record),
    };
  } finally {
    await database.close();
  }
}
