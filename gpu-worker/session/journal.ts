/**
 * What a worker must not forget, on its own disk: receipts that are not settled, what was said for them, answers that may be
 * asked for again, results and files that are not handed in, checkpoints, verdicts that are committed to but not revealed.
 */
import { Level } from 'level';
import type { AdapterId, ReceiptBatchId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import {
  type SignedInferenceReceipt,
  type SignedTrainingReceipt,
  signedInferenceReceipt,
  signedTrainingReceipt,
} from '../../runtime/primitives/attribution/receipts.ts';
import { artifactSizes } from '../../runtime/primitives/attribution/training.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import {
  bool,
  bytes,
  type Codec,
  decode,
  encode,
  fixedBytes,
  type Infer,
  struct,
  text,
  u64,
} from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import type { TrainingCheckpoint } from '../training/train-order.ts';
import { type PlantedState, plantedState } from './planted-state.ts';

/** Receipts of one session and adapter, by ascending nonce. */
export interface UnsettledGroup {
  readonly session: SessionId;
  readonly adapter: AdapterId;
  readonly receipts: readonly SignedInferenceReceipt[];
}

/** A training that is over but not handed in. */
const result = struct({ receipt: signedTrainingReceipt, sizes: artifactSizes });
export type TrainingResult = Infer<typeof result>;

/** A settled batch whose window is open: what was said for its receipts may be asked for. */
const settledBatch = struct({ session: u64, adapter: u64, firstNonce: u64, lastNonce: u64 });
export type SettledBatch = Infer<typeof settledBatch>;

const verdict = struct({ faulty: bool, salt: fixedBytes(32) });
export type JournaledVerdict = Infer<typeof verdict>;

/** An answer as it left, for whoever asks again under its voucher. `at`: Unix time in milliseconds. */
const keptAnswer = struct({ at: u64, receipt: signedInferenceReceipt, text: text() });
export type KeptAnswer = Infer<typeof keptAnswer>;

/** A receipt that will not be paid. `at`: Unix time in milliseconds. */
const unpaid = struct({ at: u64, why: text(), receipt: signedInferenceReceipt });
export type UnpaidReceipt = Infer<typeof unpaid>;

const storedCheckpoint = struct({ losses: bytes(), state: bytes() });

type File = { readonly hash: Hash; readonly bytes: Uint8Array };
type Put = { readonly type: 'put'; readonly key: string; readonly value: Uint8Array };

const width = (value: bigint | number): string => BigInt(value).toString(16).padStart(16, '0');
const groupOf = (kind: 'receipt' | 'said' | 'answer' | 'unpaid', session: bigint, adapter: number | bigint): string =>
  `${kind}/${width(session)}/${width(adapter)}/`;

/** The journal cannot be written to any more; whoever used it has to begin again from what it holds. */
export class JournalError extends Error {
  readonly code: 'DISK_FULL' | 'WRITE_FAILED';
  constructor(directory: string, cause: Error) {
    const full = /no space left|disk quota exceeded/i.test(cause.message);
    super(
      full
        ? `the disk with the journal at ${directory} is full`
        : `the journal at ${directory} cannot be written to: ${cause.message}`,
      { cause },
    );
    this.code = full ? 'DISK_FULL' : 'WRITE_FAILED';
  }
}

export class WorkerJournal {
  readonly #database: Level<string, Uint8Array>;
  readonly #directory: string;
  readonly #broken = new AbortController();

  private constructor(database: Level<string, Uint8Array>, directory: string) {
    this.#database = database;
    this.#directory = directory;
  }

  /** Aborted with a {@link JournalError} by the first write that fails: what LevelDB appends behind it may not be found again. */
  get broken(): AbortSignal {
    return this.#broken.signal;
  }

  async #write(body: () => Promise<void>): Promise<void> {
    this.#broken.signal.throwIfAborted();
    try {
      await body();
    } catch (cause) {
      const error = new JournalError(this.#directory, cause as Error);
      this.#broken.abort(error);
      throw error;
    }
  }

  #put(key: string, value: Uint8Array): Promise<void> {
    return this.#write(() => this.#database.put(key, value, { sync: true }));
  }

  #putAll(puts: readonly Put[]): Promise<void> {
    return this.#write(() => this.#database.batch([...puts], { sync: true }));
  }

  #remove(key: string): Promise<void> {
    return this.#write(() => this.#database.del(key));
  }

  #clear(range: { readonly gte: string; readonly lt?: string; readonly lte?: string }): Promise<void> {
    return this.#write(() => this.#database.clear(range));
  }

  /** Rejects when another worker uses the directory. */
  static async open(directory: string): Promise<WorkerJournal> {
    const database = new Level<string, Uint8Array>(directory, { valueEncoding: 'view' });
    await database.open();
    return new WorkerJournal(database, directory);
  }

  async #read<T>(key: string, codec: Codec<T>): Promise<T | undefined> {
    const stored = await this.#database.get(key);
    return stored === undefined ? undefined : decode(codec, stored);
  }

  async #list<T>(kind: string, codec: Codec<T>): Promise<Map<bigint, T>> {
    const found = new Map<bigint, T>();
    for await (const [key, value] of this.#database.iterator({ gte: `${kind}/`, lt: `${kind}0` })) {
      found.set(BigInt(`0x${key.slice(kind.length + 1)}`), decode(codec, value));
    }
    return found;
  }

  // ---- receipts ----------------------------------------------------------------------------------------------

  /**
   * Before the answer leaves: what was answered will be settled. `transcript` is kept beside it until the batch's window is
   * over, since an audit may ask for it, and the answer with its `text` for those who ask again.
   */
  async keep(receipt: SignedInferenceReceipt, transcript: Uint8Array, text: string): Promise<void> {
    const { session, adapter, nonce } = receipt.payload.voucher.payload;
    const put = (kind: 'receipt' | 'said' | 'answer', value: Uint8Array): Put => ({
      type: 'put',
      key: groupOf(kind, session, adapter) + width(nonce),
      value,
    });
    await this.#putAll([
      put('receipt', encode(signedInferenceReceipt, receipt)),
      put('said', transcript),
      put('answer', encode(keptAnswer, { at: BigInt(Date.now()), receipt, text })),
    ]);
  }

  /** At once, so that requests keep their order. */
  answer(session: bigint, adapter: number, nonce: bigint): KeptAnswer | undefined {
    const stored = this.#database.getSync(groupOf('answer', session, adapter) + width(nonce));
    return stored === undefined ? undefined : decode(keptAnswer, stored);
  }

  /** Forgets answers from before `since` (Unix time in milliseconds), and the oldest beyond the `most` latest ones. */
  forgetAnswers(since: number, most: number): Promise<void> {
    return this.#forgetOld('answer', since, most);
  }

  /** Forgets receipts that were set aside before `since` (Unix time in milliseconds), and the oldest beyond the `most` latest. */
  forgetUnpaid(since: number, most: number): Promise<void> {
    return this.#forgetOld('unpaid', since, most);
  }

  async #forgetOld(kind: 'answer' | 'unpaid', since: number, most: number): Promise<void> {
    const kept: { readonly key: string; readonly at: bigint }[] = [];
    for await (const [key, value] of this.#database.iterator({ gte: `${kind}/`, lt: `${kind}0` })) {
      kept.push({ key, at: decode(u64, value.subarray(0, 8)) });
    }
    kept.sort((a, b) => Number(b.at - a.at));
    for (const [rank, { key, at }] of kept.entries()) {
      if (rank >= most || at < BigInt(since)) await this.#remove(key);
    }
  }

  /** Receipts up to that nonce are settled, or never will be. */
  async forgetReceipts(session: bigint, adapter: number, upTo: bigint): Promise<void> {
    const prefix = groupOf('receipt', session, adapter);
    await this.#clear({ gte: prefix, lte: prefix + width(upTo) });
  }

  /** Receipts that will not be paid, with the reason: they no longer wait, and stay for their worker to look at. */
  async setAside(receipts: readonly SignedInferenceReceipt[], why: string): Promise<void> {
    const moves = receipts.flatMap((receipt) => {
      const { session, adapter, nonce } = receipt.payload.voucher.payload;
      const value = encode(unpaid, { at: BigInt(Date.now()), why, receipt });
      return [
        { type: 'put' as const, key: groupOf('unpaid', session, adapter) + width(nonce), value },
        { type: 'del' as const, key: groupOf('receipt', session, adapter) + width(nonce) },
      ];
    });
    await this.#write(() => this.#database.batch(moves, { sync: true }));
  }

  /** Receipts that were set aside. */
  async unpaid(): Promise<UnpaidReceipt[]> {
    const found: UnpaidReceipt[] = [];
    for await (const value of this.#database.values({ gte: 'unpaid/', lt: 'unpaid0' }))
      found.push(decode(unpaid, value));
    return found;
  }

  async unsettled(): Promise<UnsettledGroup[]> {
    const groups = new Map<string, { session: SessionId; adapter: AdapterId; receipts: SignedInferenceReceipt[] }>();
    for await (const [key, value] of this.#database.iterator({ gte: 'receipt/', lt: 'receipt0' })) {
      const [, session, adapter] = key.split('/') as [string, string, string];
      const name = `${session}/${adapter}`;
      const group = groups.get(name) ?? {
        session: BigInt(`0x${session}`) as SessionId,
        adapter: Number(`0x${adapter}`) as AdapterId,
        receipts: [],
      };
      groups.set(name, group);
      group.receipts.push(decode(signedInferenceReceipt, value));
    }
    return [...groups.values()];
  }

  keepBatch(id: bigint, batch: SettledBatch): Promise<void> {
    return this.#put(`batch/${width(id)}`, encode(settledBatch, batch));
  }

  async batches(): Promise<Map<ReceiptBatchId, SettledBatch>> {
    return new Map([...(await this.#list('batch', settledBatch))].map(([id, batch]) => [id as ReceiptBatchId, batch]));
  }

  /** The batch's window is over: nobody can ask any more. */
  async forgetBatch(id: bigint, { session, adapter, firstNonce, lastNonce }: SettledBatch): Promise<void> {
    const prefix = groupOf('said', session, adapter);
    await this.#clear({ gte: prefix + width(firstNonce), lte: prefix + width(lastNonce) });
    await this.#remove(`batch/${width(id)}`);
  }

  /** Those that neither a waiting receipt nor a batch with an open window stands for. */
  async forgetTranscripts(): Promise<void> {
    const batches = [...(await this.batches()).values()];
    for await (const key of this.#database.keys({ gte: 'said/', lt: 'said0' })) {
      const [session, adapter, nonce] = key
        .split('/')
        .slice(1)
        .map((each) => BigInt(`0x${each}`)) as [bigint, bigint, bigint];
      const open = batches.some(
        (each) =>
          each.session === session && each.adapter === adapter && each.firstNonce <= nonce && nonce <= each.lastNonce,
      );
      const waiting = await this.#database.get(groupOf('receipt', session, adapter) + width(nonce));
      if (!open && waiting === undefined) await this.#remove(key);
    }
  }

  transcript(session: bigint, adapter: number, nonce: bigint): Promise<Uint8Array | undefined> {
    return this.#database.get(groupOf('said', session, adapter) + width(nonce));
  }

  // ---- files -------------------------------------------------------------------------------------------------

  /** Files that the chain is about to be told of: they survive a crash between that and the upload. */
  async keepFiles(files: readonly File[]): Promise<void> {
    await this.#putAll(files.map(filePut));
  }

  async fileNames(): Promise<Uint8Array[]> {
    const keys = await this.#database.keys({ gte: 'file/', lt: 'file0' }).all();
    return keys.map((key) => fromHex(key.slice('file/'.length)));
  }

  file(hash: Uint8Array): Promise<Uint8Array | undefined> {
    return this.#database.get(`file/${toHex(hash)}`);
  }

  async forgetFile(hash: Uint8Array): Promise<void> {
    await this.#remove(`file/${toHex(hash)}`);
  }

  // ---- training, by lease ------------------------------------------------------------------------------------

  /** What training goes on from. */
  async keepCheckpoint(lease: bigint, checkpoint: TrainingCheckpoint): Promise<void> {
    const losses = new Uint8Array(Float64Array.from(checkpoint.losses).buffer);
    const stored = encode(storedCheckpoint, { losses, state: checkpoint.state });
    const puts = [{ type: 'put' as const, key: `checkpoint/${width(lease)}`, value: stored }];
    // The others lie there already: each was the last one once.
    const last = checkpoint.segments.length - 1;
    if (last >= 0) puts.push({ type: 'put', key: segmentKey(lease, last), value: checkpoint.segments[last]! });
    await this.#putAll(puts);
  }

  async checkpoint(lease: bigint): Promise<TrainingCheckpoint | undefined> {
    const stored = await this.#read(`checkpoint/${width(lease)}`, storedCheckpoint);
    if (stored === undefined) return undefined;
    const segments = await this.#database.values({ gte: segmentKey(lease, 0), lte: segmentKey(lease, 0xffff) }).all();
    const losses = [...new Float64Array(new Uint8Array(stored.losses).buffer)];
    return { state: stored.state, losses, segments };
  }

  /** The work is done: from here on it is only handed in, whatever happens to the process. */
  async keepResult(receipt: SignedTrainingReceipt, sizes: TrainingResult['sizes'], files: readonly File[]) {
    const { lease } = receipt.payload;
    const puts = [
      ...files.map(filePut),
      { type: 'put' as const, key: `result/${width(lease)}`, value: encode(result, { receipt, sizes }) },
    ];
    await this.#putAll(puts);
  }

  result(lease: bigint): Promise<TrainingResult | undefined> {
    return this.#read(`result/${width(lease)}`, result);
  }

  /** Nothing is leased: what is left of earlier leases has no use. */
  async forgetLeases(): Promise<void> {
    for (const kind of ['checkpoint', 'segment', 'result']) await this.#clear({ gte: `${kind}/`, lt: `${kind}0` });
  }

  // ---- audits ------------------------------------------------------------------------------------------------

  /** Before the commitment is sent: a verdict that cannot be revealed costs as much as silence. */
  keepVerdict(audit: number, value: JournaledVerdict): Promise<void> {
    return this.#put(`verdict/${width(audit)}`, encode(verdict, value));
  }

  verdict(audit: number): Promise<JournaledVerdict | undefined> {
    return this.#read(`verdict/${width(audit)}`, verdict);
  }

  verdicts(): Promise<Map<bigint, JournaledVerdict>> {
    return this.#list('verdict', verdict);
  }

  forgetVerdict(audit: number): Promise<void> {
    return this.#remove(`verdict/${width(audit)}`);
  }

  // ---- planted faults ----------------------------------------------------------------------------------------

  keepPlanted(state: PlantedState): Promise<void> {
    return this.#put('planted/state', encode(plantedState, state));
  }

  planted(): Promise<PlantedState | undefined> {
    return this.#read('planted/state', plantedState);
  }

  forgetPlanted(): Promise<void> {
    return this.#remove('planted/state');
  }

  keepPlantSession(session: bigint): Promise<void> {
    return this.#put('planted/session', encode(u64, session));
  }

  plantSession(): Promise<bigint | undefined> {
    return this.#read('planted/session', u64);
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

const segmentKey = (lease: bigint, at: number): string => `segment/${width(lease)}/${width(at)}`;
const filePut = ({ hash, bytes }: File) => ({ type: 'put' as const, key: `file/${toHex(hash)}`, value: bytes });
