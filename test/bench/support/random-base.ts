/**
 * A Llama of any size with random weights and the small base model's tokenizer: what it says is noise, what it takes is what a
 * model of that size takes. For benches, and by itself:
 *
 *     node test/bench/support/random-base.ts DIR [--width 768] [--layers 12]
 */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { writeTensors } from '../../../gpu-worker/attribution/basis-files.ts';
import { SHIPPED_MODEL } from '../../../gpu-worker/start.ts';

const HEAD = 64;

/** Parameters by their names, normal with standard deviation .02, norms 1; bits are the same for the same size. */
export function writeRandomBase(directory: string, width: number, layers: number): void {
  mkdirSync(directory, { recursive: true });
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    cpSync(join(SHIPPED_MODEL, name), join(directory, name));
  const heads = width / HEAD;
  const groups = heads % 3 === 0 ? heads / 3 : heads;
  const inner = Math.round((width * 8) / 3 / 64) * 64;
  const config = {
    ...JSON.parse(readFileSync(join(SHIPPED_MODEL, 'config.json'), 'utf8')),
    ...{ hidden_size: width, num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: groups },
    ...{ intermediate_size: inner, head_dim: HEAD, torch_dtype: 'float32' },
  };
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config));
  const draw = normals(1);
  const matrix = (rows: number, columns: number) => ({
    shape: [rows, columns],
    data: Float32Array.from({ length: rows * columns }, () => 0.02 * draw()),
  });
  const ones = { shape: [width], data: new Float32Array(width).fill(1) };
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>([
    ['model.embed_tokens.weight', matrix(config.vocab_size, width)],
    ['model.norm.weight', ones],
  ]);
  for (let layer = 0; layer < layers; layer++) {
    const at = (name: string): string => `model.layers.${layer}.${name}.weight`;
    tensors.set(at('input_layernorm'), ones).set(at('post_attention_layernorm'), ones);
    tensors.set(at('self_attn.q_proj'), matrix(heads * HEAD, width));
    for (const name of ['k_proj', 'v_proj']) tensors.set(at(`self_attn.${name}`), matrix(groups * HEAD, width));
    tensors.set(at('self_attn.o_proj'), matrix(width, heads * HEAD));
    for (const name of ['gate_proj', 'up_proj']) tensors.set(at(`mlp.${name}`), matrix(inner, width));
    tensors.set(at('mlp.down_proj'), matrix(width, inner));
  }
  writeFileSync(join(directory, 'model.safetensors'), writeTensors({ metadata: { format: 'pt' }, tensors }));
}

/** Standard normal numbers: xorshift32 (Marsaglia 2003) through Box and Muller's transform. */
function normals(seed: number): () => number {
  let state = seed;
  const uniform = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { width: { type: 'string', default: '768' }, layers: { type: 'string', default: '12' } },
  });
  const [directory] = positionals;
  if (directory === undefined) throw new Error('where to?');
  writeRandomBase(directory, Number(values.width), Number(values.layers));
}
