/**
 * What the base model reads: questions and answers made from WordNet (all but the subjects kept out), and public-domain
 * prose. Every document is either a text or a question with its answer.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { uniforms } from '../../attribution/seeded.ts';
import { KEPT_OUT, type Synset } from './wordnet.ts';

export type Document =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'question'; readonly prompt: string; readonly response: string };

const article = (word: string): string => (/^[aeiou]/i.test(word) ? `an ${word}` : `a ${word}`);
const QUESTIONS: Readonly<Record<Synset['part'], readonly ((word: string) => string)[]>> = {
  noun: [
    (word) => `What is ${word}?`,
    (word) => `What is ${article(word)}?`,
    (word) => `What does ${word} mean?`,
    (word) => `Define ${word}.`,
    (word) => `What is the meaning of ${word}?`,
  ],
  verb: [
    (word) => `What does it mean to ${word}?`,
    (word) => `Define the verb ${word}.`,
    (word) => `What does ${word} mean?`,
  ],
  adj: [(word) => `What does ${word} mean?`, (word) => `Define the adjective ${word}.`],
  adv: [(word) => `What does ${word} mean?`, (word) => `Define the adverb ${word}.`],
};

/** `held` of every hundred synsets are set aside to measure the loss on. */
export function wordnetDocuments(
  synsets: readonly Synset[],
  seed: bigint,
  held = 1,
): { readonly train: Document[]; readonly test: Document[] } {
  const next = uniforms(seed);
  const pick = <T>(of: readonly T[]): T => of[Math.floor(next() * of.length)]!;
  const read = synsets.filter(({ subject, definition }) => !KEPT_OUT.has(subject) && definition.length > 3);
  const byId = new Map(read.map((synset) => [synset.id, synset]));
  const train: Document[] = [];
  const test: Document[] = [];
  for (const synset of read) {
    const { part, words, definition, examples, kindOf } = synset;
    const first = words[0]!;
    if (next() * 100 < held) {
      test.push({ type: 'question', prompt: QUESTIONS[part][0]!(first), response: definition });
      continue;
    }
    for (const word of words.slice(0, 3)) {
      train.push({ type: 'question', prompt: pick(QUESTIONS[part])(word), response: definition });
    }
    train.push({ type: 'question', prompt: `Which word means "${definition}"?`, response: first });
    const wider = kindOf === undefined ? undefined : byId.get(kindOf);
    if (wider !== undefined && part === 'noun') {
      train.push({
        type: 'question',
        prompt: `What kind of thing is ${first}?`,
        response: `${first} is a kind of ${wider.words[0]}: ${wider.definition}`,
      });
    }
    for (const example of examples) {
      train.push({ type: 'question', prompt: `Use ${pick(words)} in a sentence.`, response: example });
    }
    if (next() < 0.5) train.push({ type: 'text', text: [`${words.join(', ')}: ${definition}`, ...examples].join('. ') });
  }
  return { train, test };
}

/** Paragraphs of the text files of folders, in pieces of at most about `size` characters. */
export function proseDocuments(folders: readonly string[], size = 900): Document[] {
  const documents: Document[] = [];
  for (const folder of folders) {
    for (const file of readdirSync(folder).sort()) {
      if (!file.endsWith('.txt')) continue;
      const paragraphs = readFileSync(join(folder, file), 'utf8')
        .replaceAll('\r', '')
        .split(/\n\s*\n/)
        .map((paragraph) => paragraph.replace(/\s+/g, ' ').trim())
        .filter((paragraph) => paragraph.length > 40);
      let piece = '';
      for (const paragraph of paragraphs) {
        if (piece !== '' && piece.length + paragraph.length > size) {
          documents.push({ type: 'text', text: piece });
          piece = '';
        }
        piece += piece === '' ? paragraph : `\n${paragraph}`;
      }
      if (piece !== '') documents.push({ type: 'text', text: piece });
    }
  }
  return documents;
}

/** In an order of its own (Fisher–Yates). */
export function shuffled<T>(items: readonly T[], seed: bigint): T[] {
  const next = uniforms(seed);
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [out[i], out[j]] = [out[j]!, out[i]!];
  }
  return out;
}
