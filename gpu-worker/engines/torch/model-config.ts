/** What the tokenizer needs of a `config.json`, whatever the architecture; the rest is transformers' to judge. */
import { jsonObject } from '../embedded/config.ts';
import { readModelFile } from '../embedded/model.ts';
import { EngineError } from '../engine.ts';

export interface ModelConfig {
  readonly vocabulary: number;
  readonly bos: number | undefined;
  readonly eos: readonly number[];
}

export async function readModelConfig(directory: string): Promise<ModelConfig> {
  const config = jsonObject(
    (await readModelFile(directory, 'config.json')).toString('utf8'),
    'BAD_CONFIG',
    'config.json',
  );
  const text = (config.text_config ?? config) as Readonly<Record<string, unknown>>;
  const vocabulary = text.vocab_size ?? config.vocab_size;
  if (!Number.isSafeInteger(vocabulary) || (vocabulary as number) < 1) {
    throw new EngineError('BAD_CONFIG', `vocab_size: ${String(vocabulary)}`);
  }
  return {
    vocabulary: vocabulary as number,
    bos: ids(config.bos_token_id ?? text.bos_token_id)[0],
    eos: ids(config.eos_token_id ?? text.eos_token_id),
  };
}

function ids(value: unknown): number[] {
  const all = value == null ? [] : Array.isArray(value) ? value : [value];
  for (const id of all) {
    if (!Number.isInteger(id) || id < 0) throw new EngineError('BAD_CONFIG', `token id ${String(id)}`);
  }
  return all;
}
