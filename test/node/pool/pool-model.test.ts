/** Random histories against a model so simple that it can be read: what was told to each submitter, and what must hold. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { PoolTransaction } from '../../../node/pool/entry.ts';
import { TransactionPool } from '../../../node/pool/pool.ts';
import type { BlockRef, TransactionStatus } from '../../../node/ports/chain.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { extrinsicOf, FakeChain, specOf } from './fake-chain.ts';

const SENDERS = 6;
const LIMITS = { ready: { count: 60, bytes: 1e6 }, future: { count: 12, bytes: 1e6 }, perSender: 25 };

function randomly(seed: number): (bound: number) => number {
  let state = (seed + 1) * 0x9e3779b1;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  };
}

/** What one submitter knows. */
interface Told {
  readonly extrinsic: Uint8Array;
  readonly statuses: TransactionStatus[];
}

const FINAL = new Set(['finalized', 'finalityTimeout', 'usurped', 'dropped', 'invalid']);
/** What may follow what (Substrate: TransactionStatus). */
const NEXT: Record<string, readonly string[]> = {
  start: ['ready', 'future'],
  future: ['ready', 'inBlock', 'dropped', 'invalid', 'usurped'],
  ready: ['future', 'inBlock', 'usurped', 'dropped', 'invalid'],
  inBlock: ['retracted', 'finalized', 'finalityTimeout'],
  retracted: ['ready', 'future', 'inBlock', 'dropped', 'invalid', 'usurped'],
};

class History {
  readonly chain = new FakeChain();
  readonly pool = new TransactionPool(this.chain.ports(), { limits: LIMITS, banMs: 50, shortBanMs: 10 });
  readonly told = new Map<string, Told>();
  readonly #random: (bound: number) => number;
  #salt = 0;

  constructor(seed: number) {
    this.#random = randomly(seed);
  }

  /** One thing that may happen. */
  async step(): Promise<void> {
    const random = this.#random;
    const choice = random(100);
    this.chain.time += random(5);
    if (choice < 55) await this.#submit(1 + random(6));
    else if (choice < 75) this.#author();
    else if (choice < 82) this.#reorganise();
    else if (choice < 88) this.#finalize();
    else if (choice < 92) await this.#buildWithBadOnes();
    else if (choice < 95) this.#remove();
    else await this.settle();
  }

  async settle(): Promise<void> {
    for (let i = 0; i < 12; i++) await nextTurn();
  }

  async #submit(count: number): Promise<void> {
    const random = this.#random;
    await Promise.all(
      Array.from({ length: count }, async () => {
        const sender = random(SENDERS);
        const nonce = Math.max(0, this.chain.nonce(sender) + random(9) - 1);
        const until = random(8) === 0 ? this.chain.best.number + 1 + random(5) : 0;
        const extrinsic = extrinsicOf({ sender, nonce, priority: 1 + random(5), until, salt: ++this.#salt });
        const statuses: TransactionStatus[] = [];
        try {
          await this.pool.submitAndWatch(extrinsic, (status) => statuses.push(status));
          this.told.set(toHex(extrinsic), { extrinsic, statuses });
        } catch (problem) {
          if (statuses.length > 0) throw new Error('a refused transaction was reported on');
          if (![1010, 1013, 1014, 1016].includes((problem as { rpcCode: number }).rpcCode)) throw problem;
        }
      }),
    );
  }

  /** A block of the pool's best, with somebody else's transactions among them. */
  #author(): void {
    this.chain.adopt(this.chain.build(this.chain.best, this.#content()));
  }

  #content(): Uint8Array[] {
    const random = this.#random;
    const content = this.pool.ready().slice(0, random(12));
    for (let i = random(3); i > 0; i--) {
      const sender = random(SENDERS);
      const extrinsic = extrinsicOf({ sender, nonce: this.chain.nonce(sender), salt: ++this.#salt });
      content.splice(random(content.length + 1), 0, extrinsic);
    }
    return content;
  }

  #reorganise(): void {
    const random = this.#random;
    const depth = Math.min(1 + random(3), this.chain.best.number - this.chain.finalized.number);
    if (depth === 0) return;
    let block: BlockRef = this.chain.ancestor(this.chain.best, depth);
    const lost = this.chain.block(this.chain.best.hash).body.slice(1);
    for (let i = depth + random(2); i > 0; i--) {
      block = this.chain.build(block, [...this.#content(), ...lost.filter(() => random(2) === 0)]);
    }
    this.chain.adopt(block);
  }

  #finalize(): void {
    const depth = this.#random(4);
    const block = this.chain.ancestor(this.chain.best, depth);
    if (block.number > this.chain.finalized.number) this.chain.finalize(block);
  }

  async #buildWithBadOnes(): Promise<void> {
    await this.settle();
    const order = this.pool.bestFirst();
    const bad: PoolTransaction[] = [];
    const spoilt = new Set<number>();
    for (let next = order.next(); next !== undefined; next = order.next()) {
      const { sender } = specOf(next.extrinsic);
      if (spoilt.has(sender)) throw new Error('given out although it comes after an invalid one');
      if (this.#random(10) > 0) continue;
      order.markInvalid();
      spoilt.add(sender);
      bad.push(next);
    }
    const error = { type: 'Invalid', value: { type: 'Payment' } } as const;
    this.pool.reportInvalid(bad.map(({ hash }) => ({ hash, error })));
  }

  #remove(): void {
    const all = [...this.pool.transactions(), ...this.pool.futures()];
    const one = all[this.#random(all.length)];
    if (one !== undefined) this.pool.remove([one.hash]);
  }

  /** Everything that must hold between two steps. */
  problems(): string[] {
    const problems: string[] = [];
    const ready = [...this.pool.transactions()];
    const futures = this.pool.futures();
    const { ready: readyCount, future, bytes } = this.pool.status();
    if (ready.length !== readyCount || futures.length !== future) problems.push('counts are wrong');
    if (bytes !== [...ready, ...futures].reduce((sum, { extrinsic }) => sum + extrinsic.length, 0)) {
      problems.push('bytes are wrong');
    }
    if (readyCount > LIMITS.ready.count || future > LIMITS.future.count) problems.push('limits are exceeded');

    const at = (sender: number, nonce: number) => `${sender}/${nonce}`;
    const places = ready.map(({ extrinsic }) => specOf(extrinsic));
    const taken = new Set(places.map(({ sender, nonce }) => at(sender, nonce)));
    if (taken.size !== places.length) problems.push('two ready ones for one place');
    for (const { sender, nonce } of places) {
      if (nonce > this.chain.nonce(sender) && !taken.has(at(sender, nonce - 1))) {
        problems.push(`ready without its predecessor: ${at(sender, nonce)}`);
      }
    }
    for (const { extrinsic } of futures) {
      const { sender, nonce } = specOf(extrinsic);
      if (taken.has(at(sender, nonce - 1))) problems.push(`future with its predecessor ready: ${at(sender, nonce)}`);
    }
    problems.push(...this.#order(ready), ...this.#reports(ready, futures));
    return [...problems, ...this.chain.errors];
  }

  /** The order is that of always taking the best one whose predecessor was taken. */
  #order(ready: readonly PoolTransaction[]): string[] {
    const left = new Map(ready.map((each) => [each, specOf(each.extrinsic)]));
    const serial = new Map(ready.map((each) => [each, each as PoolTransaction & { serial: number }]));
    const expected: PoolTransaction[] = [];
    while (left.size > 0) {
      const waiting = [...left.values()];
      const possible = [...left].filter(
        ([, { sender, nonce }]) => !waiting.some((other) => other.sender === sender && other.nonce === nonce - 1),
      );
      possible.sort(
        ([a], [b]) =>
          Number(b.priority - a.priority) ||
          (a.validTill === b.validTill ? 0 : a.validTill - b.validTill) ||
          serial.get(a)!.serial - serial.get(b)!.serial,
      );
      const [best] = possible[0]!;
      expected.push(best);
      left.delete(best);
    }
    return expected.every((each, i) => each === ready[i]) ? [] : ['not best first'];
  }

  /** Submitters were told what is true, in an order that makes sense. */
  #reports(ready: readonly PoolTransaction[], futures: readonly PoolTransaction[]): string[] {
    const problems: string[] = [];
    const where = new Map<string, string>();
    for (const { extrinsic } of ready) where.set(toHex(extrinsic), 'ready');
    for (const { extrinsic } of futures) where.set(toHex(extrinsic), 'future');
    for (const [key, { statuses }] of this.told) {
      let before = 'start';
      for (const { type } of statuses) {
        if (FINAL.has(before) || !NEXT[before]!.includes(type)) problems.push(`${before} then ${type}`);
        before = type;
      }
      const last = statuses.at(-1);
      if (last === undefined) continue;
      // A retracted one is on its way back; anything else is where its last status says.
      const expected = last.type === 'ready' || last.type === 'future' ? last.type : undefined;
      if (last.type !== 'retracted' && where.get(key) !== expected) {
        problems.push(`told ${last.type}, but ${where.get(key) ?? 'not in the pool'}`);
      }
    }
    return problems;
  }

  /** What is left when everything has calmed down: nothing valid was lost. */
  forgotten(): string[] {
    const gone: string[] = [];
    for (const { extrinsic, statuses } of this.told.values()) {
      const last = statuses.at(-1)!.type;
      const { sender, nonce } = specOf(extrinsic);
      if (last === 'retracted') gone.push(`${sender}/${nonce} was retracted and never heard of again`);
    }
    return gone;
  }
}

async function run(t: Test, seed: number, steps: number): Promise<void> {
  const history = new History(seed);
  const controller = new AbortController();
  const running = history.pool.run(controller.signal);
  for (let step = 0; step < steps; step++) {
    await history.step();
    // Right after a reorganisation transactions rest on what is being looked at again.
    if (step % 3 === 0) {
      await history.settle();
      const problems = history.problems();
      if (problems.length > 0) {
        t.fail(`seed ${seed}, step ${step}: ${problems.join('; ')}`);
        break;
      }
    }
  }
  await history.settle();
  t.strictSame(history.forgotten(), [], `seed ${seed}`);
  const counted = [...history.told.values()].flatMap(({ statuses }) => statuses.map(({ type }) => type));
  for (const type of counted) seen.set(type, (seen.get(type) ?? 0) + 1);
  controller.abort();
  await running;
}

const seen = new Map<string, number>();

t.test('random histories', async (t) => {
  const runs = Number(process.env.POOL_RUNS ?? 40);
  const first = Number(process.env.POOL_SEED ?? 0);
  for (let seed = first; seed < first + runs; seed++) await run(t, seed, 150);
  for (const type of ['ready', 'future', 'inBlock', 'retracted', 'finalized', 'usurped', 'dropped', 'invalid']) {
    t.ok((seen.get(type) ?? 0) > 20, `${type} happened ${seen.get(type)} times`);
  }
});
