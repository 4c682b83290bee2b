/**
 * First step of pre-training: `node prepare.ts MODEL_DIRECTORY WORK_DIRECTORY [PROSE_FOLDER …]` learns the tokenizer (once),
 * writes it with its chat template to the model's directory, and the corpus as token ids (u16) to the work directory.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { learnMerges, tokenizerJson } from './bpe.ts';
import { type Document, proseDocuments, shuffled, wordnetDocuments } from './corpus.ts';
import { readWordnet } from './wordnet.ts';

const VOCABULARY = 3072;
const SEED = 2026n;
const SPECIAL = ['<|pad|>', '<|begin|>', '<|end|>', '<|system|>', '<|user|>', '<|assistant|>'] as const;
const [PAD, BEGIN, END, SYSTEM, USER, ASSISTANT] = SPECIAL;

const TEMPLATE = [
  '{{ bos_token }}{% for message in messages %}',
  `{% if message['role'] == 'user' %}{{ '${USER}' + message['content'] }}`,
  `{% elif message['role'] == 'assistant' %}{{ '${ASSISTANT}' + message['content'] + eos_token }}`,
  `{% elif message['role'] == 'system' %}{{ '${SYSTEM}' + message['content'] }}{% endif %}`,
  `{% endfor %}{% if add_generation_prompt %}{{ '${ASSISTANT}' }}{% endif %}`,
].join('');

const written = (document: Document): string =>
  document.type === 'text'
    ? `${BEGIN}${document.text}${END}`
    : `${BEGIN}${USER}${document.prompt}${ASSISTANT}${document.response}${END}`;

const [modelDirectory, workDirectory, ...prose] = process.argv.slice(2);
if (modelDirectory === undefined || workDirectory === undefined) {
  process.stderr.write('usage: node prepare.ts MODEL_DIRECTORY WORK_DIRECTORY [PROSE_FOLDER …]\n');
  process.exit(2);
}
mkdirSync(modelDirectory, { recursive: true });
mkdirSync(workDirectory, { recursive: true });
const { train, test } = wordnetDocuments(readWordnet(), SEED);
const documents = shuffled([...train, ...proseDocuments(prose)], SEED);
const file = join(modelDirectory, 'tokenizer.json');
if (!existsSync(file)) {
  const texts = documents.flatMap((document) =>
    document.type === 'text' ? [document.text] : [document.prompt, document.response],
  );
  const json = tokenizerJson(SPECIAL, learnMerges(texts, VOCABULARY - SPECIAL.length - 256));
  writeFileSync(file, `${JSON.stringify(json)}\n`);
}
const config = {
  tokenizer_class: 'PreTrainedTokenizerFast',
  ...{ bos_token: BEGIN, eos_token: END, pad_token: PAD, clean_up_tokenization_spaces: false, model_max_length: 1024 },
  chat_template: TEMPLATE,
};
writeFileSync(join(modelDirectory, 'tokenizer_config.json'), `${JSON.stringify(config, null, 2)}\n`);

const tokenizer = new Tokenizer(JSON.parse(readFileSync(file, 'utf8')) as object, config);
for (const [name, part] of [
  ['train', documents],
  ['test', test],
] as const) {
  const ids = part.flatMap((document) => tokenizer.encode(written(document)).ids);
  writeFileSync(join(workDirectory, `${name}.u16`), Uint16Array.from(ids));
  process.stdout.write(`${name}: ${part.length} documents, ${ids.length} tokens\n`);
}
