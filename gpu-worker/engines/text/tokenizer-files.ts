/** The tokenizer's files of a model directory. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { LlamaShape } from '../embedded/config.ts';
import { readModelFile } from '../embedded/model.ts';
import { openTokenizer, type StreamingTokenizer } from './tokenizer.ts';

export async function readTokenizer(
  directory: string,
  shape: Pick<LlamaShape, 'bos' | 'eos' | 'vocabulary'>,
): Promise<StreamingTokenizer> {
  const optional = (name: string): Promise<string | undefined> =>
    readFile(join(directory, name), 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
  const config = await optional('tokenizer_config.json');
  const template = await optional('chat_template.jinja');
  return openTokenizer({
    tokenizer: (await readModelFile(directory, 'tokenizer.json')).toString('utf8'),
    ...(config === undefined ? {} : { config }),
    ...(template === undefined ? {} : { template }),
    bos: shape.bos,
    eos: shape.eos,
    vocabulary: shape.vocabulary,
  });
}
