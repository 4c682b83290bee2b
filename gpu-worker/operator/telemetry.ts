/**
 * What a worker tells of itself on this machine: Prometheus metrics at `/metrics`, and `/status` for `openledger worker
 * status`. Served on the loopback only; where is written into the worker's directory.
 */

import { rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { AdapterMetrics, EngineMetrics, LoadedModel, TrainingProgress } from '../engines/engine.ts';

/** In the worker's directory. */
export const TELEMETRY_FILE = 'telemetry.json';

export interface TelemetryPlace {
  readonly url: string;
  readonly pid: number;
}

export interface WorkerStatus {
  readonly address: string;
  readonly node: string;
  readonly engine: string;
  readonly model: string;
  /** Milliseconds since 1970. */
  readonly since: number;
  readonly attached: boolean;
  readonly task: { readonly order: number; readonly phase: string; readonly progress?: TrainingProgress } | undefined;
  readonly serving: readonly number[];
  readonly engineMetrics: EngineMetrics;
  /** Tokens a second over the last ten seconds. */
  readonly tokensPerSecond: number;
  readonly answers: number;
  readonly trainings: number;
  readonly audits: number;
  readonly receipts: { readonly waiting: number; readonly settled: number };
  /** Adapters that had most requests, where the engine tells. */
  readonly adapters: readonly AdapterMetrics[];
}

export interface Answered {
  readonly tokensIn: number;
  readonly tokensOut: number;
  readonly generationMs: number;
  readonly attributionMs: number;
}

const WINDOW_MS = 10_000;
const SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
/** Of these at most is told by name: a label for each of thousands would be no use to anybody. */
const MOST_ADAPTERS = 50;

export class Telemetry {
  readonly #registry = new Registry();
  readonly #model: LoadedModel;
  readonly #about: Pick<WorkerStatus, 'address' | 'node' | 'engine' | 'model' | 'since'>;
  readonly #answers: Counter;
  readonly #trainings: Counter;
  readonly #audits: Counter<'finding'>;
  readonly #settled: Counter;
  readonly #generation: Histogram;
  readonly #attribution: Histogram;
  readonly #samples: { readonly at: number; readonly tokens: number }[] = [];
  readonly #sampling: NodeJS.Timeout;
  #counts = { answers: 0, trainings: 0, audits: 0, settled: 0, waiting: 0 };
  #task: WorkerStatus['task'];
  #attached = false;
  #serving: readonly number[] = [];

  constructor(model: LoadedModel, about: { readonly address: string; readonly node: string; readonly engine: string }) {
    this.#model = model;
    this.#about = { ...about, model: model.info.name, since: Date.now() };
    const registers = [this.#registry];
    const count = <T extends string>(name: string, help: string, labelNames: T[] = []): Counter<T> =>
      new Counter({ name: `openledger_worker_${name}`, help, registers, labelNames });
    const time = (name: string, help: string): Histogram =>
      new Histogram({ name: `openledger_worker_${name}`, help, registers, buckets: SECONDS });
    this.#answers = count('answers_total', 'Answers that were given with a receipt.');
    this.#trainings = count('trainings_total', 'Training orders that were handed in.');
    this.#audits = count('audits_total', 'Audits that this worker came to a verdict in.', ['finding']);
    this.#settled = count('receipts_settled_total', 'Receipts that were settled on the chain.');
    this.#generation = time('generation_seconds', 'Time to generate an answer.');
    this.#attribution = time('attribution_seconds', 'Time to attribute an answer, behind its generation.');
    const gauge = (name: string, help: string, read: (metrics: EngineMetrics) => number | undefined): void => {
      new Gauge({
        name: `openledger_worker_${name}`,
        help,
        registers,
        collect() {
          this.set(read(model.metrics()) ?? 0);
        },
      });
    };
    gauge('sequences_active', 'Generations under way.', ({ active }) => active);
    gauge('sequences_waiting', 'Generations that wait for a place in the batch.', ({ waiting }) => waiting);
    gauge('engine_memory_bytes', 'Memory of the engine.', ({ memoryBytes }) => memoryBytes);
    gauge('engine_restarts', 'Engine processes that took over from one that died.', ({ restarts }) => restarts);
    gauge('generated_tokens', 'Tokens that were generated.', ({ generatedTokens }) => generatedTokens);
    gauge('prompt_tokens', 'Tokens of prompts that were read.', ({ promptTokens }) => promptTokens);
    gauge('adapters_open', 'Adapters that are open, final ones and checkpoints.', ({ adapters }) => adapters);
    gauge('adapters_device', 'Adapters in device memory.', ({ tiers }) => tiers?.device);
    gauge('adapters_host', 'Adapters in host memory.', ({ tiers }) => tiers?.host);
    const whether = (name: string, help: string, read: () => number): void => {
      new Gauge({
        name: `openledger_worker_${name}`,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    };
    whether('attached', '1 while the node is connected.', () => Number(this.#attached));
    whether('adapters_served', 'Adapters of the ledger that are served.', () => this.#serving.length);
    whether('receipts_waiting', 'Receipts that wait for settlement.', () => this.#counts.waiting);
    this.#adapterMetrics(registers);
    this.#sample();
    this.#sampling = setInterval(() => this.#sample(), 1_000);
    this.#sampling.unref();
  }

  // ---- what happens --------------------------------------------------------------------------------------------

  attached(attached: boolean): void {
    this.#attached = attached;
  }

  serving(adapters: readonly number[]): void {
    this.#serving = adapters;
  }

  answered({ generationMs, attributionMs }: Answered): void {
    this.#counts.answers++;
    this.#counts.waiting++;
    this.#answers.inc();
    this.#generation.observe(generationMs / 1_000);
    this.#attribution.observe(attributionMs / 1_000);
  }

  /** Receipts of before that wait still. */
  waiting(receipts: number): void {
    this.#counts.waiting += receipts;
  }

  training(order: number, phase: string, progress?: TrainingProgress): void {
    this.#task = { order, phase, ...(progress !== undefined && { progress }) };
  }

  /** The work on an order is over; `handedIn` with a result. */
  trained(handedIn: boolean): void {
    this.#task = undefined;
    if (!handedIn) return;
    this.#counts.trainings++;
    this.#trainings.inc();
  }

  settled(receipts: number): void {
    this.#counts.settled += receipts;
    this.#counts.waiting = Math.max(0, this.#counts.waiting - receipts);
    this.#settled.inc(receipts);
  }

  audited(faulty: boolean): void {
    this.#counts.audits++;
    this.#audits.inc({ finding: faulty ? 'fault' : 'none' });
  }

  // ---- what is told ----------------------------------------------------------------------------------------------

  async status(): Promise<WorkerStatus> {
    const { answers, trainings, audits, settled, waiting } = this.#counts;
    const adapters = (await this.#model.adapterMetrics?.().catch(() => [])) ?? [];
    const first = this.#samples[0]!;
    const last = this.#samples.at(-1)!;
    const seconds = Math.max(1, last.at - first.at) / 1_000;
    return {
      ...this.#about,
      attached: this.#attached,
      task: this.#task,
      serving: this.#serving,
      engineMetrics: this.#model.metrics(),
      tokensPerSecond: Math.max(0, last.tokens - first.tokens) / seconds,
      answers,
      trainings,
      audits,
      receipts: { waiting, settled },
      adapters: [...adapters].sort((a, b) => b.requests - a.requests).slice(0, MOST_ADAPTERS),
    };
  }

  /** Serves both pages until the signal; resolves when it listens. Port 0: any that is free. */
  async serve(directory: string, port: number, signal: AbortSignal): Promise<TelemetryPlace> {
    const server = createServer((request, response) => {
      const page = request.url === '/metrics' ? this.#registry.metrics() : this.#page(request.url);
      page
        .then((text) => {
          if (text === undefined) response.writeHead(404).end();
          else {
            const type = request.url === '/metrics' ? this.#registry.contentType : 'application/json';
            response.writeHead(200, { 'content-type': type }).end(text);
          }
        })
        .catch(() => response.writeHead(500).end());
    });
    await listen(server, port);
    const place = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, pid: process.pid };
    const file = join(directory, TELEMETRY_FILE);
    await writeFile(file, JSON.stringify(place));
    const end = (): void => {
      clearInterval(this.#sampling);
      server.close();
      server.closeAllConnections();
      rm(file, { force: true }).catch(() => {});
    };
    if (signal.aborted) end();
    else signal.addEventListener('abort', end, { once: true });
    return place;
  }

  async #page(url: string | undefined): Promise<string | undefined> {
    return url === '/status' ? JSON.stringify(await this.status()) : undefined;
  }

  #sample(): void {
    const now = Date.now();
    this.#samples.push({ at: now, tokens: this.#model.metrics().generatedTokens });
    while (this.#samples.length > 2 && this.#samples[0]!.at < now - WINDOW_MS) this.#samples.shift();
  }

  /** Sums of the adapters that had most requests. */
  #adapterMetrics(registers: Registry[]): void {
    const model = this.#model;
    if (model.adapterMetrics === undefined) return;
    const make = (name: string, help: string, read: (each: AdapterMetrics) => number): Gauge<'adapter'> =>
      new Gauge({
        name: `openledger_worker_adapter_${name}`,
        help,
        registers,
        labelNames: ['adapter'],
        async collect() {
          const rows = (await model.adapterMetrics?.().catch(() => [])) ?? [];
          this.reset();
          for (const each of [...rows].sort((a, b) => b.requests - a.requests).slice(0, MOST_ADAPTERS)) {
            this.set({ adapter: String(each.adapter) }, read(each));
          }
        },
      });
    make('requests', 'Requests of an adapter since the engine process began.', ({ requests }) => requests);
    make('tokens', 'Tokens that were generated with an adapter.', ({ generatedTokens }) => generatedTokens);
    make('first_token_seconds', 'Sum of times to the first token.', (each) => each.firstTokenMilliseconds / 1_000);
  }
}

async function listen(server: Server, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, '127.0.0.1', resolve);
  await promise;
}
