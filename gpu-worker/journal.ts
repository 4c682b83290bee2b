/** What a worker must not forget: receipts that are not settled yet, and artifacts that are not handed in yet. */
import { Level } from 'level';
import { type SignedInferenceReceipt, signedInferenceReceipt } from '../runtime/primitives/attribution/receipts.ts';
import { fromHex, toHex } from '../runtime/primitives/bytes.ts';
import { decode, encode } from '../runtime/primitives/scale/codec.ts';
import type { Hash } from '../runtime/primitives/types.ts';

/** Receipts of one session and adapter, by ascending nonce. */
export interface UnsettledGroup {
  readonly session: bigint;
  readonly adapter: number;
  readonly receipts: readonly SignedInferenceReceipt[];
}

const width = (value: bigint | number): string => BigInt(value).toString(16).padStart(16, '0');
const groupOf = (session: bigint, adapter: number): string => `receipt/${width(session)}/${width(adapter)}/`;

export class WorkerJournal {
  readonly #database: Level<string, Uint8Array>;

  private constructor(database: Level<string, Uint8Array>) {
    this.#database = database;
  }

  /** Rejects when another worker uses the directory. */
  static async open(directory: string): Promise<WorkerJournal> {
    const database = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' });
    await database.open();
    return new WorkerJournal(database);
  }

  /** Before the answer leaves: what was answered will be settled. */
  async keep(receipt: SignedInferenceReceipt): Promise<void> {
    const { session, adapter, nonce } = receipt.payload.voucher.payload;
    const key = groupOf(session, adapter) + width(nonce);
    await this.#database.put(key, encode(signedInferenceReceipt, receipt), { sync: true });
  }

  async settled(session: bigint, adapter: number, upTo: bigint): Promise<void> {
    const prefix = groupOf(session, adapter);
    await this.#database.clear({ gte: prefix, lte: prefix + width(upTo) });
  }

  async unsettled(): Promise<UnsettledGroup[]> {
    const groups = new Map<string, { session: bigint; adapter: number; receipts: SignedInferenceReceipt[] }>();
    for await (const [key, value] of this.#database.iterator({ gte: 'receipt/', lt: 'receipt0' })) {
      const [, session, adapter] = key.split('/') as [string, string, string];
      const name = `${session}/${adapter}`;
      const group = groups.get(name) ?? {
        session: BigInt(`0x${session}`),
        adapter: Number(`0x${adapter}`),
        receipts: [],
      };
      groups.set(name, group);
      group.receipts.push(decode(signedInferenceReceipt, value));
    }
    return [...groups.values()];
  }

  /** Files of a training that is about to be handed in: they survive a crash between receipt and upload. */
  async keepFiles(files: readonly { readonly hash: Hash; readonly bytes: Uint8Array }[]): Promise<void> {
    const puts = files.map(({ hash, bytes }) => ({ type: 'put' as const, key: `file/${toHex(hash)}`, value: bytes }));
    await this.#database.batch(puts, { sync: true });
  }

  async *files(): AsyncGenerator<{ readonly hash: Uint8Array; readonly bytes: Uint8Array }> {
    for await (const [key, bytes] of this.#database.iterator({ gte: 'file/', lt: 'file0' })) {
      yield { hash: fromHex(key.slice('file/'.length)), bytes };
    }
  }

  async forgetFile(hash: Uint8Array): Promise<void> {
    await this.#database.del(`file/${toHex(hash)}`);
  }

  /** The state that training goes on from, by lease: one at a time. */
  async keepCheckpoint(lease: bigint, state: Uint8Array): Promise<void> {
    await this.#database.put(`checkpoint/${width(lease)}`, state, { sync: true });
  }

  async checkpoint(lease: bigint): Promise<Uint8Array | undefined> {
    return await this.#database.get(`checkpoint/${width(lease)}`);
  }

  async forgetCheckpoints(): Promise<void> {
    await this.#database.clear({ gte: 'checkpoint/', lt: 'checkpoint0' });
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}
