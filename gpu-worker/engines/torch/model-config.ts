/** What the tokenizer needs of a `config.json`, whatever the architecture; the rest is transformers' to judge. */
import { jsonObject, tokenIds } from '../embedded/config.ts';
import { readModelFile } from '../embedded/model.ts';
import { EngineError } from '../engine-error.ts';

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
    bos: tokenIds(config.bos_token_id ?? text.bos_token_id, 'bos_token_id')[0],
    eos: tokenIds(config.eos_token_id ?? text.eos_token_id, 'eos_token_id'),
  };
}
