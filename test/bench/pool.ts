/**
 * What the pool itself costs: submissions a second with signature check and validation for free, the time for a block's
 * worth of the best transactions out of a full pool, and the time to follow such a block. `node test/bench/pool.ts`
 */
import { TransactionPool } from '../../node/pool/pool.ts';
import { extrinsicOf, FakeChain } from '../node/pool/fake-chain.ts';
import { report } from './support/report.ts';

const TRANSACTIONS = 50_000;
const SENDERS = 10_000;
const BLOCK = 6_000;

const chain = new FakeChain();
const realTime = { now: () => Date.now(), monotonic: () => performance.now(), after: () => () => {} };
const pool = new TransactionPool({ ...chain.ports(), clock: realTime });
const controller = new AbortController();
const running = pool.run(controller.signal);

const extrinsics = Array.from({ length: TRANSACTIONS }, (_, i) =>
  extrinsicOf({
    sender: i % SENDERS,
    nonce: Math.floor(i / SENDERS),
    priority: 1_000 + ((i * 7919) % 1_000),
    size: 90,
  }),
);
const figures: Record<string, number> = {};
const heapBefore = process.memoryUsage().heapUsed;

/** As they come in through RPC: a few hundred in flight at any time. */
async function submitAll(all: readonly Uint8Array[], watched: boolean): Promise<number> {
  const start = process.cpuUsage();
  let next = 0;
  const client = async () => {
    for (let at = next++; at < all.length; at = next++) {
      if (watched) await pool.submitAndWatch(all[at]!, () => {});
      else await pool.submit(all[at]!, 'external');
    }
  };
  await Promise.all(Array.from({ length: 400 }, client));
  const { user, system } = process.cpuUsage(start);
  return Math.round(all.length / ((user + system) / 1e6));
}

// What the stand-in for the runtime costs, to be taken off.
const validationStart = performance.now();
for (const extrinsic of extrinsics.slice(0, 20_000)) {
  chain.validate(chain.best.hash, extrinsic);
}
figures['stand-in runtime, µs a validation'] =
  Math.round(((performance.now() - validationStart) / 20_000) * 1e3 * 10) / 10;

figures['submissions per CPU second (empty to 40,000)'] = await submitAll(extrinsics.slice(0, 40_000), false);
figures['watched submissions per CPU second (to 50,000)'] = await submitAll(extrinsics.slice(40_000), true);
figures['heap, bytes a transaction'] = Math.round((process.memoryUsage().heapUsed - heapBefore) / TRANSACTIONS);

const timed = <T>(name: string, run: () => T): T => {
  const start = performance.now();
  const result = run();
  figures[name] = Math.round((performance.now() - start) * 100) / 100;
  return result;
};

const best: Uint8Array[] = [];
timed('first transaction out of 50,000, ms', () => pool.bestFirst().next());
timed(`best ${BLOCK} out of 50,000, ms`, () => {
  const order = pool.bestFirst();
  for (let next = order.next(); next !== undefined && best.length < BLOCK; next = order.next()) {
    best.push(next.extrinsic);
  }
});
const block = chain.build(chain.best, best);
timed(`following a block of ${BLOCK}, ms`, () => chain.adopt(block));
const sibling = chain.build(chain.ancestor(block, 1), best.slice(0, BLOCK / 2));
const rival = chain.build(sibling, []);
timed('following a reorganisation of it, ms', () => chain.adopt(rival));
const start = performance.now();
while (pool.status().ready < TRANSACTIONS - BLOCK / 2) await new Promise((resolve) => setImmediate(resolve));
figures[`until ${BLOCK / 2} retracted ones are back, ms`] = Math.round(performance.now() - start);
if (chain.errors.length > 0) throw new Error(chain.errors.join('; '));

controller.abort();
await running;
await report(
  'pool',
  Object.entries(figures).map(([what, value]) => ({ what, value, unit: '' })),
);
