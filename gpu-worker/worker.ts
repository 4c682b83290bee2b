/**
 * The worker process: proves its key to a node, offers its services on the chain, trains under leases, serves adapters,
 * settles receipts. Everything it must not forget is in its journal, so that it may die at any point.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { KeyringPair } from '@polkadot/keyring/types';
import type { Log } from '../consensus/ports.ts';
import { type JsonRpcClient, JsonRpcError } from '../rpc/client/json-rpc.ts';
import { Ledger, LedgerError } from '../rpc/client/ledger.ts';
import { attachment, generationRequest } from '../rpc/inference-codecs.ts';
import type { Hashing } from '../runtime/host.ts';
import * as compute from '../runtime/pallets/compute.ts';
import * as datanets from '../runtime/pallets/datanets.ts';
import * as inference from '../runtime/pallets/inference.ts';
import * as models from '../runtime/pallets/models.ts';
import { hashOf } from '../runtime/primitives/attribution/canonical.ts';
import { blobName } from '../runtime/primitives/attribution/commitment.ts';
import type { AdapterId, BaseModelId, OrderId } from '../runtime/primitives/attribution/ids.ts';
import { MAX_BATCH_RECEIPTS } from '../runtime/primitives/attribution/limits.ts';
import {
  feeOf,
  inferenceReceipt,
  receiptBatch,
  type SignedInferenceReceipt,
  signedInferenceReceipt,
  signedReceiptBatch,
  signedTrainingReceipt,
  type TrainingReceipt,
  trainingReceipt,
} from '../runtime/primitives/attribution/receipts.ts';
import { splitLines } from '../runtime/primitives/attribution/records.ts';
import { DEFAULT_RULES, receiptRules, rules } from '../runtime/primitives/attribution/split.ts';
import { artifactSizes } from '../runtime/primitives/attribution/training.ts';
import { equalBytes, fromHex, toHex } from '../runtime/primitives/bytes.ts';
import { decode, encode } from '../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, multiSignature, sameAccount } from '../runtime/primitives/types.ts';
import type { LoadedModel } from './engines/engine.ts';
import { WorkerJournal } from './journal.ts';
import { ServedAdapter } from './serving.ts';
import { receiptsBatch } from './settlement.ts';
import { trainOrder } from './training.ts';

export interface WorkerOptions {
  readonly node: string;
  readonly pair: KeyringPair;
  readonly directory: string;
  readonly model: LoadedModel;
  /** Where the model was loaded from: its files say which base model of the ledger it is. */
  readonly modelDirectory: string;
  readonly engine: string;
  /** Bond to register with, if the account is no worker yet. */
  readonly bond: bigint;
  readonly training: boolean;
  readonly serving: boolean;
  /** Adapters served at most. */
  readonly maxAdapters: number;
  readonly settleMs: number;
  readonly hashing: Hashing;
  readonly log: Log;
}

const TICK_MS = 1_000;
const RECONNECT_MS = 2_000;
const PROGRESS_MS = 400;
const CHECKPOINT_STEPS = 50;
/** Receipts that make the worker settle before the time is up. */
const SETTLE_RECEIPTS = 256;

class Refusal extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Ids at the end of storage keys of maps hashed by `Twox64Concat`. */
const lastU32 = (key: Uint8Array): number =>
  new DataView(key.buffer, key.byteOffset + key.length - 4, 4).getUint32(0, true);

export class Worker {
  readonly #options: WorkerOptions;
  readonly #account: AccountId;
  readonly #journal: WorkerJournal;
  #ledger: Ledger;
  #line: JsonRpcClient | undefined;
  #baseModel: BaseModelId | undefined;
  #rules = DEFAULT_RULES;
  readonly #served = new Map<
    number,
    { readonly adapter: ServedAdapter; readonly lease: inference.Serving['lease']; readonly markup: number }
  >();
  readonly #refusedAdapters = new Set<number>();
  readonly #jobs = new Map<string, AbortController>();
  /** By session: what its answered and accepted requests may cost together, the settled ones included. */
  readonly #owed = new Map<bigint, { spent: bigint; promised: bigint; nonce: bigint }>();
  /** Nonces under way, by session and adapter: batches stop below them. */
  readonly #underWay = new Map<string, Set<bigint>>();
  #training: Promise<void> | undefined;
  #fresh = 0;
  #settledAt = Date.now();

  private constructor(options: WorkerOptions, journal: WorkerJournal, ledger: Ledger) {
    this.#options = options;
    this.#account = asAccountId(new Uint8Array(options.pair.publicKey));
    this.#journal = journal;
    this.#ledger = ledger;
  }

  /** Runs until the signal; rejects when the worker cannot start. */
  static async run(options: WorkerOptions, signal: AbortSignal): Promise<void> {
    const journal = await WorkerJournal.open(join(options.directory, 'journal'));
    try {
      const ledger = await Ledger.connect(options.node);
      const worker = new Worker(options, journal, ledger);
      await worker.#run(signal);
    } finally {
      await journal.close();
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    for (;;) {
      try {
        await this.#connected(signal);
      } catch (problem) {
        if (signal.aborted) return;
        log('warn', `lost the node: ${(problem as Error).message}`);
      }
      this.#line = undefined;
      for (const job of this.#jobs.values()) job.abort();
      await this.#ledger.close().catch(() => {});
      if (signal.aborted) {
        await this.#training?.catch(() => {});
        for (const { adapter } of this.#served.values()) await adapter.close();
        return;
      }
      this.#ledger = await this.#reconnect(signal);
    }
  }

  async #reconnect(signal: AbortSignal): Promise<Ledger> {
    for (;;) {
      await pause(RECONNECT_MS, signal);
      try {
        return await Ledger.connect(this.#options.node);
      } catch (problem) {
        if (signal.aborted) throw problem;
      }
    }
  }

  async #connected(signal: AbortSignal): Promise<void> {
    const { log, pair, serving, training } = this.#options;
    const ledger = this.#ledger;
    let gone = false;
    void ledger.rpc.closed.then(() => {
      gone = true;
    });
    this.#baseModel = await this.#findBaseModel();
    await this.#register();
    await this.#recoverDebts();
    await this.#attach();
    log('info', `attached to ${this.#options.node} as ${pair.address}`);
    while (!gone && !signal.aborted) {
      this.#rules = (await ledger.read('attribution', 'rules', rules)) ?? DEFAULT_RULES;
      await this.#upload();
      if (training && this.#training === undefined) await this.#lookForWork(signal);
      if (serving) await this.#lookForAdapters();
      const due = Date.now() - this.#settledAt >= this.#options.settleMs || this.#fresh >= SETTLE_RECEIPTS;
      if (due) await this.#settle();
      await pause(TICK_MS, signal);
    }
    if (signal.aborted) await this.#settle();
    else throw new Error('the connection is gone');
  }

  // ---- standing ----------------------------------------------------------------------------------------------

  /** The ledger's base model whose files are those that were loaded; registered by this worker if nobody has. */
  async #findBaseModel(): Promise<BaseModelId> {
    const { modelDirectory, model, pair, hashing, log } = this.#options;
    const names = ['config.json', 'model.safetensors', 'tokenizer.json'] as const;
    const files = await Promise.all(
      names.map(async (name) => {
        const bytes = new Uint8Array(await readFile(join(modelDirectory, name)));
        return { bytes, blob: blobName(hashing, bytes) };
      }),
    );
    const same = ({ manifest }: models.BaseModel): boolean =>
      [manifest.config, manifest.weights, manifest.tokenizer].every(({ blob }, at) =>
        equalBytes(blob, files[at]!.blob),
      );
    const find = async (): Promise<BaseModelId | undefined> => {
      const known = await this.#ledger.entries('models', 'baseModels', models.baseModel);
      const found = known.find(({ value }) => same(value));
      return found && (lastU32(found.key) as BaseModelId);
    };
    const before = await find();
    if (before !== undefined) return before;
    const { info } = model;
    const [config, weights, tokenizer] = files.map(({ blob, bytes }) => ({ blob: toHex(blob), bytes: bytes.length }));
    const manifest = {
      name: info.name,
      licence: 'Apache-2.0',
      parameters: info.parameters,
      vocabulary: info.vocabulary,
      config,
      weights,
      tokenizer,
    };
    await this.#ledger.submit(pair, this.#ledger.tx('models', 'registerBaseModel', manifest));
    for (const { blob, bytes } of files) await this.#ledger.putBlob(blob, bytes);
    const made = await find();
    if (made === undefined) throw new LedgerError('NO_BASE_MODEL', 'the base model was not registered');
    log('info', `registered ${info.name} as base model ${made}`);
    return made;
  }

  async #register(): Promise<void> {
    const { pair, training, serving, engine, model, bond, log } = this.#options;
    const wanted = {
      training,
      serving,
      auditing: false,
      engine,
      memoryMiB: Math.ceil(model.metrics().memoryBytes / 2 ** 20),
      baseModels: [this.#baseModel],
    };
    const known = await this.#ledger.read('compute', 'workers', compute.worker, pair.address);
    if (known === undefined) {
      await this.#ledger.submit(pair, this.#ledger.tx('compute', 'register', bond, wanted));
      log('info', `registered as a worker with a bond of ${bond / 10n ** 18n} OPEN`);
      return;
    }
    const { capabilities } = known;
    const same =
      capabilities.training === training &&
      capabilities.serving === serving &&
      capabilities.baseModels.includes(this.#baseModel as BaseModelId);
    if (!same) await this.#ledger.submit(pair, this.#ledger.tx('compute', 'update', wanted));
  }

  async #attach(): Promise<void> {
    const { hashing } = this.#options;
    const line = this.#ledger.rpc;
    const challenge = fromHex(await line.call<string>('worker_challenge'));
    const digest = hashOf(hashing, attachment, { chain: this.#ledger.genesisHash, challenge, worker: this.#account });
    const signature = toHex(encode(multiSignature, this.#sign(digest)));
    await line.subscribe(
      'worker_attach',
      'worker_detach',
      [toHex(this.#account), signature, [...this.#served.keys()]],
      (job) => this.#hear(line, job as { type: string; job: string; request?: string }),
    );
    this.#line = line;
  }

  #sign(digest: Uint8Array) {
    return { type: 'Sr25519' as const, value: this.#options.pair.sign(digest) };
  }

  /** What sessions owe by receipts that wait in the journal. */
  async #recoverDebts(): Promise<void> {
    this.#owed.clear();
    for (const { session, receipts } of await this.#journal.unsettled()) {
      for (const { payload } of receipts) {
        const owed = await this.#owedBy(session);
        owed.spent += payload.fee;
        owed.nonce = max(owed.nonce, payload.voucher.payload.nonce);
      }
    }
  }

  async #owedBy(session: bigint): Promise<{ spent: bigint; promised: bigint; nonce: bigint }> {
    const before = this.#owed.get(session);
    if (before !== undefined) return before;
    const settled = await this.#ledger.api.query.inference?.settledWith?.(session, this.#options.pair.address);
    const fresh = { spent: BigInt(settled?.toString() ?? 0), promised: 0n, nonce: 0n };
    // Two requests may have asked at the same time.
    const other = this.#owed.get(session);
    if (other !== undefined) return other;
    this.#owed.set(session, fresh);
    return fresh;
  }

  // ---- training ----------------------------------------------------------------------------------------------

  async #lookForWork(signal: AbortSignal): Promise<void> {
    const { pair, log } = this.#options;
    for (const { key, value } of await this.#ledger.entries('compute', 'tasks', compute.task)) {
      const order = lastU32(key) as OrderId;
      const { status } = value;
      if (value.baseModel !== this.#baseModel) continue;
      if (status.type === 'Open') {
        try {
          await this.#ledger.submit(pair, this.#ledger.tx('compute', 'takeLease', order));
        } catch (problem) {
          // Another worker was quicker.
          if (problem instanceof LedgerError) continue;
          throw problem;
        }
      } else if (status.type !== 'Leased' || !sameAccount(status.value.worker, this.#account)) continue;
      const task = await this.#ledger.read('compute', 'tasks', compute.task, order);
      if (task?.status.type !== 'Leased' || !sameAccount(task.status.value.worker, this.#account)) continue;
      const lease = task.status.value;
      this.#training = this.#train(order, lease, signal)
        .catch((problem: Error) => log('error', `order ${order}: ${problem.message}`))
        .finally(() => {
          this.#training = undefined;
        });
      return;
    }
  }

  async #train(order: OrderId, lease: compute.Lease, signal: AbortSignal): Promise<void> {
    const { pair, model, hashing, log } = this.#options;
    const ordered = await this.#ledger.read('models', 'orders', models.order, order);
    if (ordered === undefined) throw new LedgerError('UNKNOWN_ORDER', 'there is no such order');
    log('info', `order ${order} (${ordered.name}): training under lease ${lease.id}`);
    const base = await this.#ledger.read('models', 'baseModels', models.baseModel, ordered.baseModel);
    const net = await this.#ledger.read('datanets', 'datanets', datanets.datanet, ordered.snapshot.datanet);
    const lost = new AbortController();
    const heart = setInterval(() => {
      this.#ledger.submit(pair, this.#ledger.tx('compute', 'renewLease', order)).catch((problem: unknown) => {
        if (problem instanceof LedgerError && problem.code === 'Compute.NotLeased') lost.abort(problem);
      });
    }, 20_000);
    let reported = 0;
    let last = {};
    const report = (phase: string, done: number): void => {
      if (Date.now() - reported < PROGRESS_MS && done < 1) return;
      reported = Date.now();
      this.#line?.call('worker_progress', { order, phase, done: Math.round(done * 1000), ...last }).catch(() => {});
    };
    try {
      const resume = await this.#journal.checkpoint(lease.id);
      const trained = await trainOrder(
        hashing,
        model,
        {
          chain: this.#ledger.genesisHash,
          order,
          lease: lease.id,
          nonce: lease.nonce,
          worker: this.#account,
          snapshot: ordered.snapshot,
          baseModel: ordered.baseModel,
          baseModelHash: base!.hash,
          baseName: base!.manifest.name,
          config: ordered.config,
          trainingSeed: ordered.trainingSeed,
          sketchSeed: ordered.sketchSeed,
          rotationSeed: ordered.rotationSeed,
          dedupThreshold: net!.dedupThreshold,
          records: await this.#records(ordered.snapshot.datanet, ordered.snapshot.version),
        },
        {
          signal: AbortSignal.any([signal, lost.signal]),
          phase: report,
          ...(resume !== undefined && { resume }),
          checkpoint: (state, step) =>
            step % CHECKPOINT_STEPS === 0 ? this.#journal.keepCheckpoint(lease.id, state) : undefined,
          progress(each) {
            last = {
              step: each.step,
              total: each.total,
              loss: Math.round(each.loss * 1000),
              tokensPerSecond: Math.round(each.tokensPerSecond),
            };
          },
        },
      );
      await this.#journal.keepFiles(trained.files);
      const digest = hashOf(hashing, trainingReceipt, trained.receipt);
      const receipt = toHex(encode(signedTrainingReceipt, { payload: trained.receipt, signature: this.#sign(digest) }));
      await this.#ledger.submit(
        pair,
        this.#ledger.tx('attribution', 'submitTraining', receipt, toHex(encode(artifactSizes, trained.sizes))),
      );
      log('info', `order ${order}: handed in, loss ${(trained.receipt.loss.last / 65_536).toFixed(3)}`);
      await this.#upload();
      await this.#journal.forgetCheckpoints();
    } finally {
      clearInterval(heart);
    }
  }

  /** Files that the chain committed to and the node does not have yet. */
  async #upload(): Promise<void> {
    for await (const { hash, bytes } of this.#journal.files()) {
      try {
        if (!(await this.#ledger.hasBlob(hash))) await this.#ledger.putBlob(hash, bytes);
        await this.#journal.forgetFile(hash);
      } catch (problem) {
        // Not handed in yet, or never: a struck or expired training's files go when the next ones come.
        if (!(problem instanceof LedgerError && problem.code === 'BLOB_NOT_EXPECTED')) throw problem;
        if (this.#training === undefined) await this.#journal.forgetFile(hash);
      }
    }
  }

  async #records(datanet: number, version: number) {
    const snapshot = await this.#ledger.read('datanets', 'snapshots', datanets.storedSnapshot, datanet, version);
    const records: { line: Uint8Array; contributor: AccountId }[] = [];
    for (const { batch, contributor } of snapshot!.ranges) {
      const stored = await this.#ledger.read('datanets', 'batches', datanets.batch, datanet, batch);
      const lines = splitLines(await this.#ledger.blob(stored!.blob));
      for (const line of lines) records.push({ line, contributor });
    }
    return records;
  }

  // ---- serving -----------------------------------------------------------------------------------------------

  async #lookForAdapters(): Promise<void> {
    const { pair, log, maxAdapters } = this.#options;
    const known = await this.#ledger.entries('models', 'adapters', models.adapter);
    for (const { key, value } of known) {
      const id = lastU32(key) as AdapterId;
      const mine = value.status.type === 'Live' && value.baseModel === this.#baseModel;
      if (!mine || this.#served.has(id) || this.#refusedAdapters.has(id) || this.#served.size >= maxAdapters) continue;
      try {
        const adapter = await this.#open(id);
        if ((await this.#serving(id)) === undefined) {
          await this.#ledger.submit(pair, this.#ledger.tx('inference', 'serve', id));
        }
        const leased = await this.#serving(id);
        if (leased === undefined) throw new LedgerError('NOT_SERVING', 'the chain gave no lease');
        this.#served.set(id, { adapter, lease: leased.lease, markup: value.markup });
        await this.#line?.call('worker_serving', [...this.#served.keys()]);
        log('info', `serving adapter ${id} (${value.name})`);
      } catch (problem) {
        // A file that is not here yet will come; anything else will not get better.
        if (problem instanceof LedgerError && problem.code === 'BLOB_NOT_FOUND') continue;
        this.#refusedAdapters.add(id);
        log('warn', `adapter ${id} cannot be served: ${(problem as Error).message}`);
      }
    }
  }

  #serving(id: number): Promise<inference.Serving | undefined> {
    return this.#ledger.read('inference', 'serving', inference.serving, id, this.#options.pair.address);
  }

  async #open(id: AdapterId): Promise<ServedAdapter> {
    const receipt = await this.#ledger.read('models', 'receipts', signedTrainingReceipt, id);
    const training: TrainingReceipt = receipt!.payload;
    const { basis, features } = training;
    const blob = (hash: Uint8Array) => this.#ledger.blob(hash);
    return ServedAdapter.open(this.#options.hashing, this.#options.model, {
      training,
      adapter: await blob(training.adapter),
      adapterConfig: await blob(training.adapterConfig),
      checkpoint: await blob(basis.checkpoint),
      eigenbases: await blob(basis.eigenbases),
      projection: await blob(basis.projection),
      files: {
        features: await blob(features.featureFile),
        sums: await blob(features.sumFile),
        frequencies: await blob(features.frequencyFile),
      },
      lines: (await this.#records(training.snapshot.datanet, training.snapshot.version)).map(({ line }) => line),
    });
  }

  #hear(line: JsonRpcClient, message: { type: string; job: string; request?: string }): void {
    if (message.type === 'cancel') {
      this.#jobs.get(message.job)?.abort();
      return;
    }
    const { job } = message;
    this.#answer(line, job, message.request ?? '').catch((problem: unknown) => {
      if (problem instanceof JsonRpcError && problem.data === 'UNKNOWN_JOB') return;
      const code = problem instanceof Refusal ? problem.code : ((problem as { code?: string }).code ?? 'FAILED');
      line.call('worker_refuse', job, String(code), (problem as Error).message.slice(0, 500)).catch(() => {});
    });
  }

  async #answer(line: JsonRpcClient, job: string, encoded: string): Promise<void> {
    const { hashing, model } = this.#options;
    const request = decode(generationRequest, fromHex(encoded));
    const { session, adapter, nonce, cumulative, price } = request.voucher.payload;
    const served = this.#served.get(adapter);
    if (served === undefined) throw new Refusal('NOT_SERVED', `adapter ${adapter} is not served here`);
    const owed = await this.#owedBy(session);
    if (nonce <= owed.nonce) throw new Refusal('STALE_VOUCHER', 'a later voucher was accepted already');
    const { input } = request;
    const prompt = input.type === 'Text' ? input.value : model.tokenizer.chat(input.value);
    const tokensIn = model.tokenizer.encode(prompt).length;
    const left = cumulative - owed.spent - owed.promised - feeOf(price, tokensIn, 0);
    const affordable = price.output === 0n ? BigInt(request.maxTokens) : left / price.output;
    if (left < 0n || affordable < 1n)
      throw new Refusal('VOUCHER_TOO_SMALL', 'the voucher does not pay for this request');
    const maxTokens = Math.min(request.maxTokens, Number(affordable));
    const most = feeOf(price, tokensIn, maxTokens);
    owed.nonce = nonce;
    owed.promised += most;
    const group = `${session}/${adapter}`;
    const underWay = this.#underWay.get(group) ?? new Set();
    this.#underWay.set(group, underWay.add(nonce));
    const abort = new AbortController();
    this.#jobs.set(job, abort);
    try {
      // Deltas keep their order: each is sent before the next is made.
      let said: Promise<unknown> = Promise.resolve();
      const { receipt: payload, text } = await served.adapter.answer(
        {
          voucher: request.voucher,
          prompt,
          maxTokens,
          temperature: request.temperature / 1e9,
          topP: request.topP / 1e9,
          seed: request.seed,
          stop: request.stop,
        },
        { worker: this.#account, lease: served.lease, rules: receiptRules(this.#rules, served.markup) },
        {
          signal: abort.signal,
          token: (delta) => {
            if (delta !== '') said = line.call('worker_delta', job, delta).catch(() => {});
          },
        },
      );
      const receipt: SignedInferenceReceipt = {
        payload,
        signature: this.#sign(hashOf(hashing, inferenceReceipt, payload)),
      };
      await this.#journal.keep(receipt);
      owed.spent += payload.fee;
      this.#fresh++;
      await said;
      await line.call('worker_answer', job, toHex(encode(signedInferenceReceipt, receipt)), text);
    } finally {
      owed.promised -= most;
      underWay.delete(nonce);
      this.#jobs.delete(job);
    }
  }

  // ---- settlement --------------------------------------------------------------------------------------------

  async #settle(): Promise<void> {
    const { pair, hashing, log } = this.#options;
    this.#settledAt = Date.now();
    this.#fresh = 0;
    for (const { session, adapter, receipts } of await this.#journal.unsettled()) {
      const underWay = [...(this.#underWay.get(`${session}/${adapter}`) ?? [])];
      const ready = receipts
        .filter(({ payload }) => underWay.every((nonce) => payload.voucher.payload.nonce < nonce))
        .slice(0, MAX_BATCH_RECEIPTS);
      if (ready.length === 0) continue;
      const { batch, file } = receiptsBatch(hashing, ready);
      const signed = { payload: batch, signature: this.#sign(hashOf(hashing, receiptBatch, batch)) };
      try {
        const encoded = toHex(encode(signedReceiptBatch, signed));
        await this.#journal.keepFiles([{ hash: batch.blob, bytes: file }]);
        await this.#ledger.submit(pair, this.#ledger.tx('attribution', 'settle', encoded, file.length));
        log('info', `settled ${batch.receipts} receipts of adapter ${adapter}`);
      } catch (problem) {
        if (!(problem instanceof LedgerError) || problem.code === 'NOT_INCLUDED') throw problem;
        log('error', `${batch.receipts} receipts of adapter ${adapter} cannot be settled: ${problem.code}`);
        // Settled before a crash, or refused for good.
      }
      await this.#journal.settled(session, adapter, batch.lastNonce);
    }
    await this.#upload();
  }
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);

const pause = (milliseconds: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const timer = setTimeout(done, milliseconds);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done, { once: true });
  });
