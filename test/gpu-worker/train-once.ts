/** The small training order in a process of its own: tells what came of it as one line of JSON. */
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { trainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { hashing, startEngine, train } from './order.ts';

const { engine, model } = await startEngine();
const { receipt, files } = await train(model);
await engine.close();
const outcome = {
  receipt: toHex(hashOf(hashing, trainingReceipt, receipt)),
  featureRoot: toHex(receipt.features.featureRoot),
  files: files.map(({ hash }) => toHex(hash)),
};
process.stdout.write(`${JSON.stringify(outcome)}\n`);
