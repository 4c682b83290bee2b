/**
 * Real text for the protocol: WordNet's glosses as questions and answers, a subject a domain, split among contributors of
 * whom one copies another and one contributes noise; held-out glosses as queries.
 */
import { seededSample, uniforms } from '../../../gpu-worker/attribution/seeded.ts';
import { readWordnet, type Subject, type Synset } from '../../../gpu-worker/models/pretrain/wordnet.ts';

/**
 * Branches of WordNet's tree of hypernyms, by their root's first word and subject; the base models have read none of them
 * (`KEPT_OUT`). Within a branch glosses share their words and their build, between branches they hardly do.
 */
export const DOMAINS: readonly (readonly [word: string, subject: Subject])[] = [
  ['bird', 'noun.animal'],
  ['beverage', 'noun.food'],
  ['blood vessel', 'noun.body'],
  ['cost', 'noun.possession'],
  ['tree', 'noun.plant'],
  ['mineral', 'noun.substance'],
  ['canine', 'noun.animal'],
  ['bony fish', 'noun.animal'],
];

export interface Question {
  readonly prompt: string;
  readonly response: string;
}
/** How a copied record was made: as it is, with one word changed, or in other words. */
export type Copy = 'exact' | 'one word' | 'reworded';
export interface LabRecord extends Question {
  /** −1 for noise. */
  readonly domain: number;
  readonly contributor: number;
  readonly copy?: Copy;
}
export interface Corpus {
  /** In the order in which they were contributed. */
  readonly records: readonly LabRecord[];
  readonly queries: readonly (Question & { readonly domain: number })[];
  readonly contributors: number;
  readonly copier: number;
  readonly victim: number;
  readonly noise: number;
}

export interface CorpusSize {
  readonly domains: number;
  readonly perContributor: number;
  readonly queriesPerDomain: number;
}

const MIXED = 2;
const LONGEST_GLOSS = 75;
const wordsOf = (text: string): string[] => text.toLowerCase().match(/[a-z]+|[0-9]+|[^\sa-z0-9]/g) ?? [];
const asked = ({ words }: Synset): string => `What is ${words[0]}?`;

/** One contributor a domain, two of two domains each, the copier (of the first), the noise maker: in this order. */
export function corpus(seed: bigint, { domains, perContributor, queriesPerDomain }: CorpusSize): Corpus {
  const all = readWordnet();
  const contributors = domains + MIXED + 2;
  const [copier, noise, victim] = [contributors - 2, contributors - 1, 0];
  const next = uniforms(seed ^ 0xa5a5n);
  const at = (limit: number): number => Math.floor(next() * limit);
  const branch = branches(all);
  const pools = DOMAINS.slice(0, domains).map((_, d) => {
    const own = all.filter(
      (synset) =>
        branch(synset) === d && wordsOf(synset.definition).length >= 5 && synset.definition.length <= LONGEST_GLOSS,
    );
    const wanted = 3 * perContributor + queriesPerDomain;
    return seededSample(seed + BigInt(d), own.length, wanted)
      .map((i) => ({ own: own[i]!, order: next() }))
      .sort((a, b) => a.order - b.order)
      .map(({ own: synset }) => ({ prompt: asked(synset), response: synset.definition }));
  });
  const take = (domain: number) => ({ ...pools[domain]!.pop()!, domain });
  const queries = pools.flatMap((_, d) => Array.from({ length: queriesPerDomain }, () => take(d)));
  const records: LabRecord[] = [];
  for (let contributor = 0; contributor < copier; contributor++) {
    for (let i = 0; i < perContributor; i++) {
      const pair = 2 * (contributor - domains);
      records.push({ ...take(contributor < domains ? contributor : (pair + (i % 2)) % domains), contributor });
    }
  }
  const synonyms = synonymsOf(all);
  const kinds = ['exact', 'one word', 'reworded'] as const;
  for (const [i, original] of records.slice(victim * perContributor, (victim + 1) * perContributor).entries()) {
    const copy = kinds[i % kinds.length]!;
    const { prompt, response } = copied(original, copy, synonyms);
    records.push({ prompt, response, domain: original.domain, contributor: copier, copy });
  }
  const words = all.slice(0, 20_000).flatMap(({ definition }) => wordsOf(definition));
  for (let i = 0; i < perContributor; i++) {
    const drawn = Array.from({ length: 12 }, () => words[at(words.length)]!);
    const [first, ...rest] = drawn;
    records.push({ prompt: `What is ${first}?`, response: rest.join(' '), domain: -1, contributor: noise });
  }
  return { records, queries, contributors, copier, victim, noise };
}

/** Which of {@link DOMAINS} a synset is in, by its first hypernyms all the way up; −1 for none. */
function branches(synsets: readonly Synset[]): (synset: Synset) => number {
  const byId = new Map(synsets.map((synset) => [synset.id, synset]));
  const roots = DOMAINS.map(
    ([word, subject]) => synsets.find((synset) => synset.subject === subject && synset.words[0] === word)?.id,
  );
  return (synset) => {
    for (let at = synset.kindOf; at !== undefined; at = byId.get(at)?.kindOf) {
      const found = roots.indexOf(at);
      if (found >= 0) return found;
    }
    return -1;
  };
}

/** A word's first synonym, for single words that have one. */
export function synonymsOf(synsets: readonly Synset[]): ReadonlyMap<string, string> {
  const out = new Map<string, string>();
  for (const { words } of synsets) {
    const plain = words.filter((word) => /^[a-z]+$/.test(word));
    if (plain.length >= 2 && !out.has(plain[0]!)) out.set(plain[0]!, plain[1]!);
  }
  return out;
}

/** The same again, as somebody would write it who wants to be paid for another's work. */
export function copied(original: Question, copy: Copy, synonyms: ReadonlyMap<string, string>): Question {
  if (copy === 'exact') return original;
  const words = original.response.split(' ');
  if (copy === 'one word') {
    const place = Math.floor(words.length / 2);
    return { ...original, response: words.with(place, synonyms.get(words[place]!) ?? 'thing').join(' ') };
  }
  // Every third word by a synonym if it has one, and another way to ask.
  const response = words.map((word, i) => (i % 3 === 1 ? (synonyms.get(word) ?? word) : word)).join(' ');
  return { prompt: original.prompt.replace('What is', 'Tell me what is meant by'), response: `it is ${response}` };
}
