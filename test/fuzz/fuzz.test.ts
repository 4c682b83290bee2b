/** A short run of the fuzzer: what `npm run fuzz` does a million times. */
import t from 'tap';
import { type Report, work } from './process.ts';

const COUNTS = { scale: 3_000, extrinsic: 3_000, submit: 800, 'json-rpc': 1_000, proof: 1_500 };

for (const [target, count] of Object.entries(COUNTS)) {
  t.test(`${target}: ${count} inputs`, { timeout: 60_000 }, async (test) => {
    const reports: Report[] = [];
    const seed = Number(process.env.FUZZ_SEED ?? 1);
    await work({ target, seed, from: 0, to: count }, (report) => reports.push(report));
    const last = reports.at(-1);
    if (last?.type === 'found') test.fail(`seed ${seed}, input ${last.iteration}: ${last.what}`, { input: last.input });
    else test.equal(last?.type, 'done');
  });
}
