/**
 * The demonstration's people and their records: WordNet's glosses of subjects that the base model has never read, split among
 * accounts. One account copies another's records with a full stop behind each, one contributes words in no order.
 */
import { uniforms } from '../../../gpu-worker/attribution/seeded.ts';
import { shuffled } from '../../../gpu-worker/models/pretrain/corpus.ts';
import { readWordnet, type Subject, type Synset } from '../../../gpu-worker/models/pretrain/wordnet.ts';

export type Part = 'honest' | 'copier' | 'noise';

export interface QuestionAnswer {
  readonly prompt: string;
  readonly response: string;
}

export interface DemoContributor {
  readonly name: string;
  readonly part: Part;
  readonly records: readonly QuestionAnswer[];
}

export interface Domain {
  readonly title: string;
  readonly subject: Subject;
  readonly description: string;
  /** In the order in which they contribute: who copies comes after who is copied. */
  readonly contributors: readonly DemoContributor[];
  /** Nobody's records: the same kind of questions, never trained on. */
  readonly held: readonly QuestionAnswer[];
}

const PEOPLE = [
  { title: 'Food', subject: 'noun.food', names: ['Amara', 'Bruno', 'Chen', 'Dalia'], copier: 'Copycat' },
  { title: 'Animals', subject: 'noun.animal', names: ['Emeka', 'Farah', 'Goran', 'Hana'], noise: 'Noisy' },
  { title: 'Plants', subject: 'noun.plant', names: ['Ines', 'Jonas', 'Kavya', 'Liam'] },
] as const satisfies readonly {
  title: string;
  subject: Subject;
  names: readonly string[];
  copier?: string;
  noise?: string;
}[];

/** Of all contributors. */
export const contributorNames = (): string[] =>
  PEOPLE.flatMap(({ names, ...others }) => [
    ...names,
    ...('copier' in others ? [others.copier] : []),
    ...('noise' in others ? [others.noise] : []),
  ]);

const SEED = 2026n;

const entry = ({ words, definition }: Synset): QuestionAnswer => ({
  prompt: `What is ${words[0]}?`,
  response: definition,
});

/** Short enough for a small model, long enough to say something; no word twice. */
function glosses(synsets: readonly Synset[], subject: Subject): QuestionAnswer[] {
  const seen = new Set<string>();
  const fit = synsets.filter(({ words, definition, subject: of }) => {
    const good = of === subject && definition.length >= 20 && definition.length <= 120 && !seen.has(words[0]!);
    if (good) seen.add(words[0]!);
    return good;
  });
  return shuffled(fit, SEED).map(entry);
}

/** Real words, drawn without any order. */
function noise(synsets: readonly Synset[], count: number): QuestionAnswer[] {
  const next = uniforms(SEED);
  const words = synsets.flatMap(({ definition }) => definition.match(/[a-z]{3,}/g) ?? []);
  const word = (): string => words[Math.floor(next() * words.length)]!;
  return Array.from({ length: count }, () => ({
    prompt: `What is ${word()}?`,
    response: Array.from({ length: 8 }, word).join(' '),
  }));
}

/** `each`: records a contributor; `held`: records a domain that are kept back. */
export function demoDomains(each: number, held: number): Domain[] {
  const synsets = readWordnet();
  return PEOPLE.map(({ title, subject, names, ...others }) => {
    const all = glosses(synsets, subject);
    const contributors: DemoContributor[] = names.map((name, i) => ({
      name,
      part: 'honest',
      records: all.slice(i * each, (i + 1) * each),
    }));
    if ('copier' in others) {
      const copied = contributors[0]!.records.map(({ prompt, response }) => ({ prompt, response: `${response}.` }));
      contributors.push({ name: others.copier, part: 'copier', records: shuffled(copied, SEED) });
    }
    if ('noise' in others) contributors.push({ name: others.noise, part: 'noise', records: noise(synsets, each) });
    const used = names.length * each;
    return {
      title,
      subject,
      description: `WordNet’s glosses of ${subject}`,
      contributors,
      held: all.slice(used, used + held),
    };
  });
}

export const jsonl = (records: readonly QuestionAnswer[]): string =>
  records.map((record) => JSON.stringify(record)).join('\n');
