/**
 * `npm run soak:workers -- --tasks 100 --engines torch,embedded --disk DIR`: workers work off orders and requests on a whole ledger
 * while engines and workers are killed, memory and disk run out, and the node goes away. At the end no task may be lost,
 * done twice or paid twice, and the books must balance to the last unit. DIR is an empty directory on a small file system of
 * its own (`mount -t tmpfs -o size=256m tmpfs DIR`); without one, the disk does not run out.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { EngineChoice } from '../../gpu-worker/engines/choice.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { chainSpecJson } from '../../node/chain-spec/chain-spec.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { KeySigner } from '../../node/keystore/key-signer.ts';
import { holdingsOf, transfer } from '../../rpc/client/accounts.ts';
import { adapters, orders as allOrders, baseModels } from '../../rpc/client/models.ts';
import { pendingBatches } from '../../rpc/client/rewards.ts';
import { openSession, sessionOf } from '../../rpc/client/sessions.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import { ENTRY_DEPOSIT } from '../../runtime/pallets/ledger/inference.ts';
import { BUDGET as ORDER_BUDGET } from '../../runtime/pallets/ledger/models/store.ts';
import * as balances from '../../runtime/pallets/standard/balances.ts';
import { Random } from '../fuzz/random.ts';
import { JSON_TYPE } from '../gpu-worker/asking.ts';
import { BUDGET, balanced, order, populate, setLeases } from '../gpu-worker/ledger-world.ts';
import { OPEN, openGateway } from '../main-job/support.ts';
import { until } from '../support/until.ts';
import { type FaultKind, fill, killEngine, restartNode, starve } from './support/faults.ts';
import { KeptNode, KeptWorker } from './support/kept.ts';
import { PaidReceipts, Reconnecting } from './support/paid.ts';

export interface WorkerSoakOptions {
  /** Orders and requests together. */
  readonly tasks: number;
  /** One worker each. */
  readonly engines: readonly EngineChoice[];
  readonly kinds: readonly FaultKind[];
  /** Of the workers' files; on a small file system if the disk is to run out. */
  readonly disk?: string;
  readonly seed: number;
  readonly slotMs: number;
  /** Seconds for all of it. */
  readonly patience: number;
  readonly say: (line: string) => void;
}

export interface WorkerSoakResult {
  readonly orders: number;
  readonly answers: number;
  readonly faults: Readonly<Record<FaultKind, number>>;
  readonly workerStarts: number;
  /** Requests that had to be made again. */
  readonly again: number;
  /** Processes of engines that took over from one that died or ran out of memory, as workers told. */
  readonly engineDeaths: number;
  readonly outOfMemory: number;
  readonly diskFull: number;
  readonly seconds: number;
  /** What must not be. */
  readonly wrong: readonly string[];
}

const NAMES = ['//Bob', '//Ferdie', '//Eve//stash', '//Bob//stash'];
/** One task in so many is an order. */
const ORDERS = 10;
/** Requests at a time. */
const WAVE = 3;
/** Longer than the gateway waits for a worker and its answer: it is not for the soak to give up first. */
const ANSWER_MS = 300_000;
const AGAIN_MS = 700;
/** Python takes its time to start on a busy machine. */
const UP_MS = 90_000;
const GATHER = 4;
/** Repetitions of a phrase of some five tokens. */
const LONG = 70;

interface Heard {
  readonly id: string;
  readonly fee: bigint;
}

export async function soakWorkers(options: WorkerSoakOptions): Promise<WorkerSoakResult> {
  const { tasks, engines, kinds, seed, slotMs, say } = options;
  const home = await mkdtemp(join(tmpdir(), 'soak-'));
  const began = Date.now();
  const left = (): number => Math.max(1, options.patience - (Date.now() - began) / 1_000);
  const end = new AbortController();
  const closing: (() => unknown)[] = [];
  const teardown = { teardown: (handler: () => unknown) => closing.push(handler) };
  const random = new Random('workers', seed);
  const hashing = createHashing();
  const pair = (uri: string): KeySigner => KeySigner.fromUri(uri, hashing);
  const faults: Record<FaultKind, number> = { engine: 0, worker: 0, memory: 0, node: 0, disk: 0 };
  const wrong: string[] = [];
  let again = 0;
  const workers: KeptWorker[] = [];
  let node: KeptNode | undefined;
  try {
    const spec = join(home, 'chain.json');
    await writeFile(spec, chainSpecJson(presetSpec('dev', { slotDurationMs: slotMs })));
    const port = await freePort();
    const kept = await KeptNode.start([
      ...['node', '--chain', spec, '--alice', '--base-path', join(home, 'node'), '--rpc-port', String(port)],
      ...['--listen-addr', '/ip4/127.0.0.1/tcp/0', '--no-mdns', '--no-prometheus'],
    ]);
    node = kept;
    const line = new Reconnecting(kept.ws);
    closing.push(() => line.close());
    const ledger = await line.get();
    const net = await populate({ ledger, pair });
    // A worker that is killed comes back in time, however busy the machine is.
    await setLeases({ ledger, pair }, 2_000);
    // Whoever orders does nothing else: what the account has at the end says what was paid.
    const owner = pair('//Orderer');
    await transfer(ledger, net.owner, owner.account, 10_000n * OPEN);
    const session = await openSession(ledger, pair('//Eve'), pair('//Eve//session').publicKey, 200n * OPEN);
    // The key divides the deposit among the workers that it asks, and pays the fees of that.
    await transfer(ledger, pair('//Eve'), pair('//Eve//session').account, OPEN);
    const gateway = await openGateway(teardown, { node: kept.ws, key: pair('//Eve//session'), session });
    const paid = new PaidReceipts(line);
    paid.watch(end.signal);

    for (const [i, engine] of engines.entries()) {
      const own = join(options.disk ?? home, `worker-${i}`);
      await mkdir(join(own, 'scratch'), { recursive: true });
      const settings = {
        ...{ node: kept.ws, uri: NAMES[i]!, directory: own, settleMs: 2_000, checkpointSteps: 5 },
        ...{ engine, maxAdapters: 64 },
      };
      const worker = new KeptWorker(settings, { TMPDIR: join(own, 'scratch') });
      worker.start();
      workers.push(worker);
    }

    const orderCount = Math.max(1, Math.floor(tasks / ORDERS));
    const answerCount = tasks - orderCount;
    const waves = Math.ceil(answerCount / WAVE);
    const live = async (): Promise<string[]> =>
      (await adapters(await line.get())).flatMap(({ value }) => (value.status.type === 'Live' ? [value.name] : []));
    const place = async (i: number): Promise<void> => {
      const terms = { ledger: await line.get(), ...net, owner };
      await order(terms, `soak-${i}`, { steps: 24, seed: BigInt(i + 1) });
    };
    let placed = 0;
    const startFunds = await holdingsOf(ledger, owner.account);
    /** Waits for those that start, at least one of them: on a busy machine Python takes long. */
    const attached = async (least: number, milliseconds = UP_MS): Promise<readonly KeptWorker[]> => {
      for (const end = Date.now() + milliseconds; ; await pause(200)) {
        const up = workers.filter(({ isUp }) => isUp);
        if (up.length >= least) return up;
        if (Date.now() > end && up.length > 0) return up;
        if (left() <= 1) throw new Error(`no worker comes back:\n${logs(workers)}`);
      }
    };
    const hurt = async (kind: FaultKind): Promise<void> => {
      const up = await attached(1);
      const apart = up.filter(({ children }) => children.length > 0);
      const worker = random.pick((kind === 'engine' || kind === 'memory') && apart.length > 0 ? apart : up);
      faults[kind]++;
      worker.note(`--- ${kind}`);
      if (kind === 'worker') await worker.kill();
      else if (kind === 'node') await restartNode(kept, random.chance(0.5));
      else if (kind === 'memory') await starve(worker, 4_000 + random.below(8_000));
      else if (kind === 'disk') await fill(options.disk!, 3_000 + random.below(6_000));
      else if (!killEngine(worker)) await worker.kill();
    };

    // Workers register it, when they have come up.
    await until('a base model', async () => (await baseModels(await line.get()))[0], left());
    // The first order has nothing to be asked yet: it meets a death of its own.
    await place(placed++);
    await pause(1_000 + random.below(2_000));
    await hurt('worker');
    while ((await live().catch(() => [])).length === 0) {
      if (left() <= 1) throw new Error(`the first adapter is not live:\n${logs(workers)}`);
      await pause(300);
    }
    say(`the first adapter is live after ${Math.round((Date.now() - began) / 1_000)} s`);

    const heard: Heard[] = [];
    const ask = async (i: number, words: number): Promise<void> => {
      const own = new Random('ask', seed, i);
      for (;;) {
        if (left() <= 1) throw new Error(`answer ${i} did not come:\n${logs(workers)}`);
        try {
          const response = await fetch(`${gateway.url}/completions`, {
            method: 'POST',
            headers: JSON_TYPE,
            signal: AbortSignal.timeout(ANSWER_MS),
            body: JSON.stringify({
              ...{ model: own.pick(await live()), max_tokens: 32 },
              prompt: `Thing number ${i} lives ${'by the river and '.repeat(words)}`,
              ...{ temperature: 0.8, seed: i },
            }),
          });
          const answer = (await response.json()) as { attribution?: { id: string; fee: string } };
          if (response.status === 200 && answer.attribution !== undefined) {
            const { id, fee } = answer.attribution;
            heard.push({ id, fee: BigInt(fee) });
            return;
          }
        } catch {
          // The node is away.
        }
        again++;
        await pause(AGAIN_MS);
      }
    };
    for (let wave = 0, asked = 0; wave < waves; wave++) {
      while (placed < orderCount && placed * waves <= wave * orderCount) await place(placed++);
      const count = Math.min(WAVE, answerCount - asked);
      // Now and then all of them, so that each has its share of what goes wrong.
      await attached(wave % GATHER === 0 ? workers.length : 1);
      // Each kind once, then as it comes.
      const kind = kinds[wave] ?? random.pick(kinds);
      // More than what the process had to hold before: it is memory that it has to ask for.
      const words = kind === 'memory' ? LONG : 1;
      const from = asked;
      asked += count;
      // Memory is short before the requests come, so that it is theirs that runs out.
      const before = kind === 'memory' ? hurt(kind) : undefined;
      const answers = Promise.all(Array.from({ length: count }, (_, i) => ask(from + i, words)));
      await pause(random.below(700));
      await (before ?? hurt(kind));
      await answers;
      say(`wave ${wave + 1} of ${waves} (${kind}): ${heard.length} answers, ${again} asked again`);
    }
    while (placed < orderCount) await place(placed++);

    await until(
      'the end of all orders',
      async () =>
        (await allOrders(await line.get())).every(({ value }) => value.status.type === 'Done') ? true : undefined,
      left(),
    ).catch((problem: Error) => wrong.push(problem.message));
    const missing = (): Heard[] => {
      const times = paid.times;
      return heard.filter(({ id }) => !times.has(id));
    };
    await until('settlement', async () => (missing().length === 0 ? true : undefined), left()).catch(() =>
      wrong.push(`${missing().length} answers were never settled`),
    );
    await Promise.all(workers.map((worker) => worker.stop()));
    await until(
      'the end of all windows',
      async () => ((await pendingBatches(await line.get())).length === 0 && paid.unpublished === 0 ? true : undefined),
      Math.max(60, left()),
    ).catch((problem: Error) => wrong.push(problem.message));
    end.abort();
    await paid.stopped();

    // ---- what must hold ------------------------------------------------------------------------------------------

    const last = await line.get();
    if (heard.length !== answerCount) wrong.push(`${heard.length} answers of ${answerCount}`);
    const byNonce = new Map<string, number>();
    for (const { payload } of paid.all) {
      const { session: of, nonce } = payload.voucher.payload;
      byNonce.set(`${of}/${nonce}`, (byNonce.get(`${of}/${nonce}`) ?? 0) + 1);
    }
    for (const [nonce, times] of byNonce) if (times > 1) wrong.push(`request ${nonce} was paid ${times} times`);
    for (const [id, times] of paid.times) if (times > 1) wrong.push(`receipt ${id} was paid ${times} times`);
    const told = new Set(heard.map(({ id }) => id));
    const unheard = [...paid.times.keys()].filter((id) => !told.has(id));
    if (unheard.length > 0) wrong.push(`${unheard.length} answers were paid that nobody heard`);
    const fees = paid.all.reduce((sum, { payload }) => sum + payload.fee, 0n);
    const state = (await sessionOf(last, session))!;
    if (state.settled !== fees) wrong.push(`the session paid ${state.settled}, its receipts say ${fees}`);
    const whole = state.settled + state.deposit + state.storageDeposit;
    if (whole !== 200n * OPEN + ENTRY_DEPOSIT) wrong.push('the deposit is not what it was');
    const made = await adapters(last);
    const ordered = await allOrders(last);
    if (ordered.length !== orderCount) wrong.push(`${ordered.length} orders of ${orderCount}`);
    for (const { id } of ordered) {
      const results = made.filter(({ value }) => value.order === id);
      if (results.length !== 1 || results[0]!.value.status.type !== 'Live') {
        wrong.push(`order ${id} has the adapters ${results.map(({ value }) => value.status.type)}`);
      }
      const task = await last.read(compute.store.Tasks, id);
      if (task !== undefined) wrong.push(`the task of order ${id} is still there: ${task.status.type}`);
      const trained = workers.flatMap(({ log }) => log.match(new RegExp(`order ${id}: trained,`, 'g')) ?? []).length;
      if (trained > 1) wrong.push(`order ${id} was trained ${trained} times`);
    }
    // The access price and the worker's budget, once each; and fees of transactions, which are far below either.
    const funds = await holdingsOf(last, owner.account);
    const spent = startFunds.free + startFunds.held - funds.free - funds.held;
    const due = BigInt(orderCount) * (BUDGET + OPEN);
    if (spent < due || spent - due > OPEN) wrong.push(`orders cost ${spent} in place of ${due}`);
    // Adapters that live keep deposits for their names, entries and files; of budgets nothing may be left.
    const holds = await last.read(balances.store.Holds, owner.account);
    const budgets = holds.filter(({ id }) => id.pallet === ORDER_BUDGET.pallet && id.reason === ORDER_BUDGET.reason);
    if (budgets.length > 0) wrong.push(`${budgets[0]?.amount} of the orders' budgets is still on hold`);
    if (!(await balanced(last))) wrong.push('the books do not balance');
    const all = logs(workers);
    return {
      ...{ orders: orderCount, answers: answerCount, faults, again, wrong },
      workerStarts: workers.reduce((sum, { starts }) => sum + starts, 0),
      engineDeaths: all.match(/the engine process is gone/g)?.length ?? 0,
      outOfMemory: all.match(/OUT_OF_MEMORY|out of memory|can't allocate memory|MemoryError|bad_alloc/gi)?.length ?? 0,
      diskFull: all.match(/DISK_FULL|ENOSPC|[Nn]o space left/g)?.length ?? 0,
      seconds: Math.round((Date.now() - began) / 1_000),
    };
  } finally {
    end.abort();
    await Promise.allSettled(workers.map(async (worker) => Promise.all([worker.stop(), worker.kill()])));
    for (const close of closing.reverse()) await Promise.resolve(close()).catch(() => {});
    await node?.stop();
    if (process.env.SOAK_LOG !== undefined) await writeFile(process.env.SOAK_LOG, logs(workers));
    await rm(home, { recursive: true, force: true });
  }
}

const logs = (workers: readonly KeptWorker[]): string =>
  workers.map(({ settings, log }) => `--- ${settings.uri} (${settings.engine})\n${log}`).join('\n');

/** Restarts keep it; nobody else asks for one in between, as a rule. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      tasks: { type: 'string', default: '100' },
      engines: { type: 'string', default: 'torch,embedded' },
      disk: { type: 'string' },
      seed: { type: 'string', default: '1' },
      slot: { type: 'string', default: '500' },
      minutes: { type: 'string', default: '45' },
    },
  });
  const { disk } = values;
  const result = await soakWorkers({
    tasks: Number(values.tasks),
    engines: values.engines.split(',') as EngineChoice[],
    kinds: ['engine', 'worker', 'memory', 'node', ...(disk === undefined ? [] : (['disk'] as const))],
    ...(disk !== undefined && { disk }),
    seed: Number(values.seed),
    slotMs: Number(values.slot),
    patience: Number(values.minutes) * 60,
    say: (line) => console.log(line),
  });
  console.log(JSON.stringify(result, undefined, 2));
  const directory = fileURLToPath(new URL('../../bench-results/', import.meta.url));
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, 'soak-workers.json'), `${JSON.stringify(result, undefined, 2)}\n`);
  if (result.wrong.length > 0) process.exitCode = 1;
}
