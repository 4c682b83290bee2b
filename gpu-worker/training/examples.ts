/** Records as the model reads them: what bears the loss, and the tokens that spans are matched against. */
import { parseRecord, recordText } from '../../runtime/primitives/attribution/records.ts';
import type { Example, ModelTokenizer } from '../engines/engine.ts';

export interface RecordExample {
  readonly example: Example;
  /** The tokens that the record teaches, without special ones: what an output can repeat. */
  readonly tokens: readonly number[];
  /** UTF-8 is made of this for shingles. */
  readonly text: string;
}

/**
 * A record with `prompt` and `response` is a question and its answer; any other one is its text. Throws a RecordError for
 * a line that is no canonical JSON object.
 */
export function recordExample(tokenizer: ModelTokenizer, line: Uint8Array): RecordExample {
  const record = parseRecord(line);
  const text = recordText({ ...record });
  const { prompt, response } = record;
  const example =
    typeof prompt === 'string' && typeof response === 'string'
      ? tokenizer.question(prompt, response)
      : tokenizer.plain(text);
  return { example, tokens: spoken(tokenizer, example.tokens.slice(example.from)), text };
}

/** As it is trained on and as its gradient is taken: of `most` tokens, one of which at least is the response's. */
export const cutExample = ({ tokens, from }: Example, most: number): Example => ({
  tokens: tokens.slice(0, most),
  from: Math.min(from, most - 1),
});

/** Without the tokens that end a text. */
export function spoken(tokenizer: ModelTokenizer, tokens: readonly number[]): number[] {
  return tokens.filter((id) => !tokenizer.eos.includes(id) && id !== tokenizer.bos);
}
