/** The same order gives the same bytes, in whatever process and however often it was interrupted. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { type TrainingCheckpoint, trainOrder } from '../../gpu-worker/training/train-order.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { trainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { ASSIGNMENT, hashing, startEngine } from './order.ts';

const SCRIPT = fileURLToPath(new URL('./train-once.ts', import.meta.url));

interface Outcome {
  readonly receipt: string;
  readonly featureRoot: string;
  readonly files: readonly string[];
}

async function fresh(): Promise<Outcome> {
  const { stdout } = await promisify(execFile)(process.execPath, [SCRIPT]);
  return JSON.parse(stdout) as Outcome;
}

t.test('two processes and one that was interrupted twice', { timeout: 115_000 }, async (test) => {
  const [first, second] = await Promise.all([fresh(), fresh()]);
  test.equal(first.files.length, 8);
  test.same(second, first, 'adapter, checkpoint, bases, features, sums and frequencies, to the last byte');

  const { engine, model } = await startEngine();
  test.teardown(() => engine.close());
  const run = async (resume: TrainingCheckpoint | undefined, until: number) => {
    let kept = resume;
    const stop = new AbortController();
    const training = trainOrder(hashing, model, ASSIGNMENT, {
      signal: stop.signal,
      ...(resume !== undefined && { resume }),
      checkpoints: {
        every: 3,
        async keep(checkpoint) {
          kept = checkpoint;
        },
      },
      progress: ({ step }) => {
        if (step === until) stop.abort();
      },
    });
    return { trained: await training.catch(() => undefined), kept };
  };
  const early = await run(undefined, 4);
  test.equal(early.trained, undefined);
  test.equal(early.kept?.losses.length, 3);
  const late = await run(early.kept, 8);
  test.equal(late.kept?.losses.length, 6);
  const { trained } = await run(late.kept, 99);
  test.same(
    {
      receipt: toHex(hashOf(hashing, trainingReceipt, trained!.receipt)),
      featureRoot: toHex(trained!.receipt.features.featureRoot),
      files: trained!.files.map(({ hash }) => toHex(hash)),
    },
    first,
    'the losses in the receipt among it',
  );
});
