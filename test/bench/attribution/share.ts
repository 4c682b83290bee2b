/**
 * What attribution adds to the time of an answer of 96 tokens, one request at a time, by the embedded engine with the base
 * model that comes along and an adapter of WordNet's glosses:
 *
 *     npm run bench -- attribution-share
 *     node test/bench/attribution/share.ts [--records 400] [--answers 12] [--buckets 65536]
 *
 * Generation is the time from the request to the last token; attribution is all that comes after it (gradient, feature,
 * influence, spans, shares) up to the unsigned receipt.
 */
import { parseArgs } from 'node:util';
import { readWordnet } from '../../../gpu-worker/models/pretrain/wordnet.ts';
import { trainingConfigOf } from '../../../rpc/client/models.ts';
import { recordLine } from '../../../runtime/primitives/attribution/records.ts';
import {
  ASSIGNMENT,
  account,
  answer,
  CONFIG,
  materialOf,
  open,
  request,
  startEngine,
  train,
} from '../../gpu-worker/order.ts';
import { report } from '../support/report.ts';

const { values } = parseArgs({
  options: {
    records: { type: 'string', default: '400' },
    answers: { type: 'string', default: '12' },
    /** Default: what an order gets that names none. */
    buckets: { type: 'string', default: String(trainingConfigOf({}).sketchWidth) },
  },
});
const TOKENS = 96;
const wanted = Number(values.answers);

const records = readWordnet()
  .filter(({ subject, words, definition }) => subject === 'noun.food' && words[0] !== undefined && definition !== '')
  .slice(0, Number(values.records))
  .map(({ words, definition }, i) => ({
    line: recordLine({ prompt: `What is ${words[0]}?`, response: definition }),
    contributor: account(`Contributor ${i % 12}`),
  }));
const { engine, model } = await startEngine();
const config = {
  ...CONFIG,
  rank: 8,
  alpha: 16,
  targets: 0x7f,
  k: 256,
  sketchWidth: Number(values.buckets),
  projectionRows: 1024,
};
const from = performance.now();
const trained = await train(model, {
  config,
  records,
  snapshot: { ...ASSIGNMENT.snapshot, count: records.length },
});
const trainedMs = performance.now() - from;
const served = await open(model, { ...materialOf(trained), lines: records.map(({ line }) => line) });

const taken: { readonly generationMs: number; readonly attributionMs: number }[] = [];
for (let n = 1; taken.length < wanted + 1 && n < 40 * wanted; n++) {
  const { generationMs, attributionMs, tokens } = await answer(
    served,
    request(BigInt(n), {
      input: { type: 'Text', value: `<|begin|><|user|>Tell me about food number ${n}.<|assistant|>` },
      maxTokens: TOKENS,
      temperature: 1_200_000_000,
      seed: BigInt(n),
    }),
  );
  if (tokens.length === TOKENS) taken.push({ generationMs, attributionMs });
}
await served.close();
await engine.close();

// The first one warms caches and compiled code up.
const measured = taken.slice(1);
const median = (list: readonly number[]): number =>
  list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.NaN;
const share = median(measured.map(({ generationMs, attributionMs }) => (100 * attributionMs) / generationMs));
await report(
  'attribution-share',
  [
    { what: `generation of ${TOKENS} tokens`, value: median(measured.map((each) => each.generationMs)), unit: 'ms' },
    { what: 'attribution of the answer', value: median(measured.map((each) => each.attributionMs)), unit: 'ms' },
    { what: 'attribution on top of generation', value: share, unit: '%', bar: ['<=', 10] },
    { what: `training and features of ${records.length} records`, value: trainedMs / 1000, unit: 's' },
  ],
  measured,
);
