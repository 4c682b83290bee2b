/** Writes an adapter as the engine begins training with it, for `vectors.py` to train from: see there. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import type { LoraSettings } from '../../../gpu-worker/engines/engine.ts';

const directory = join(process.argv[2]!, 'wide');
const lora: LoraSettings = { rank: 5, alpha: 10, targets: ['q_proj', 'v_proj', 'up_proj', 'down_proj'] };
const settings = {
  ...{ steps: 7, learningRate: 0.02, warmup: 0.25, weightDecay: 0.05, betas: [0.8, 0.95], clip: 0.5 },
  ...{ weights: [1, 0.5, 0.25], seed: '11', lora },
};
const engine = await embeddedEngine();
const model = await engine.load(directory);
const { adapter } = await model.train({
  settings: {
    ...{
      lora,
      learningRate: 0,
      epochs: 1,
      steps: 1,
      batch: 1,
      sequenceLength: 8,
      warmup: 0,
      seed: BigInt(settings.seed),
    },
  },
  examples: [model.tokenizer.plain('x')],
});
mkdirSync(join(directory, 'start'), { recursive: true });
writeFileSync(join(directory, 'start', 'adapter_config.json'), adapter.config);
writeFileSync(join(directory, 'start', 'adapter_model.safetensors'), adapter.weights);
writeFileSync(join(directory, 'start', 'settings.json'), `${JSON.stringify(settings, null, 1)}\n`);
await engine.close();
