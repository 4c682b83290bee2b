/**
 * What an order's options cost in quality: `ours, int8` with attribution by the last layers alone, and by one token in m of an
 * answer, against the same retrainings as everything else.
 *
 * `mixed`: the layers below those that carry attribution are the final adapter's, as answers are generated with, and only
 * those above are mid-run: then what generation has computed below need not be computed again.
 */

import { buildBases, featureExtractor } from '../../../gpu-worker/attribution/extractor.ts';
import { dot } from '../../../gpu-worker/attribution/seeded.ts';
import { VectorSpool } from '../../../gpu-worker/attribution/spool.ts';
import { readTensors, writeTensors } from '../../../gpu-worker/engines/embedded/safetensors.ts';
import type { Adapter, Example } from '../../../gpu-worker/engines/engine.ts';
import { featureSettings, Judge, type Result } from './evaluation.ts';
import type { Material, Retraining } from './lab.ts';

/** Of the six layers of the model that comes along; 0: all. */
const LAYERS = [0, 2, 1] as const;
const STRIDES = [1, 4, 8] as const;

/** `truth`: of the same records and queries. `told` hears each result as it comes. */
export async function options(
  material: Material,
  truth: readonly Retraining[],
  seed: bigint,
  told: (result: Result) => void,
): Promise<Result[]> {
  const judge = new Judge(material, truth);
  const { model, checkpoint, outcome, corpus } = material;
  const records = material.examples.map(({ example }) => example);
  const results: Result[] = [];
  const look = async (name: string, adapter: Adapter, fromLayer: number): Promise<void> => {
    const layout = model.layout(adapter.lora, { fromLayer });
    const rows = await spooled(material, records, adapter, { fromLayer });
    const covariances = await model.covariances(records, adapter, { fromLayer });
    const settings = featureSettings({ corpus, layout }, seed);
    const extractor = featureExtractor(await buildBases(layout, rows, covariances, settings));
    const quantised = Array.from({ length: rows.length }, (_, i) => extractor.feature(rows.at(i)));
    rows.close();
    for (const stride of STRIDES) {
      const scores: Float64Array[] = [];
      let taken = 0;
      const queries = model.gradients(material.queries, adapter, { fromLayer, stride });
      for await (const { gradient } of queries) {
        const began = performance.now();
        const { values } = extractor.feature(gradient);
        taken += performance.now() - began;
        scores.push(Float64Array.from(quantised, (row) => row.scale * dot(row.values, values)));
      }
      const queryMs = taken / scores.length;
      results.push(judge.result({ name: `${name}, 1 token in ${stride}`, bytes: settings.k + 4, scores, queryMs }));
      told(results.at(-1)!);
    }
  };
  for (const layers of LAYERS) {
    const fromLayer = layers === 0 ? 0 : model.info.layers - layers;
    const name = layers === 0 ? 'all layers' : `the last ${layers === 1 ? 'layer' : `${layers} layers`}`;
    await look(name, checkpoint, fromLayer);
    if (layers === 0) continue;
    const mixed = await model.openAdapter({ config: outcome.adapter.config, weights: mix(material, fromLayer) });
    await look(`${name}, mixed`, mixed, fromLayer);
    await mixed.close();
  }
  return results;
}

async function spooled(
  { model }: Material,
  examples: readonly Example[],
  adapter: Adapter,
  scope: { readonly fromLayer: number; readonly stride?: number },
): Promise<VectorSpool> {
  const out = new VectorSpool(model.layout(adapter.lora, { fromLayer: scope.fromLayer }).size, 2 ** 30);
  for await (const { gradient } of model.gradients(examples, adapter, scope)) out.append(gradient);
  return out;
}

/** The final adapter with the mid-run matrices of the layers from `fromLayer` on. */
function mix({ outcome }: Material, fromLayer: number): Uint8Array {
  const middle = readTensors(outcome.attribution.weights, 'BAD_ADAPTER');
  return writeTensors(
    [...readTensors(outcome.adapter.weights, 'BAD_ADAPTER')].map(([name, final]) => {
      const above = Number(/\.layers\.(\d+)\./.exec(name)![1]) >= fromLayer;
      const { shape, values } = above ? middle.get(name)! : final;
      return { name, shape, values };
    }),
  );
}
