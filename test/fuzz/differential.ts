/**
 * Our SCALE codecs against those of @polkadot/types, which nobody here wrote: the same bytes for the same values, both ways,
 * and the same verdict on bytes that are bent. `npm run fuzz:scale -- --count 100000`; `--seed` repeats a run, `--from` (with
 * `--count 1`) one input of it.
 */

import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { GenericCall } from '@polkadot/types';
import { Metadata, TypeRegistry } from '@polkadot/types';
import { stringCamelCase } from '@polkadot/util';
import { itemsOf } from '../../runtime/framework/storage.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { header } from '../../runtime/primitives/header.ts';
import {
  array,
  bool,
  bytes,
  type Codec,
  compact,
  decode,
  encode,
  fixedBytes,
  i8,
  i32,
  i64,
  i128,
  option,
  pairs,
  result,
  struct,
  text,
  tuple,
  u8,
  u16,
  u32,
  u64,
  u128,
  variants,
  vec,
} from '../../runtime/primitives/scale/codec.ts';
import { ScaleError, type ScaleErrorCode } from '../../runtime/primitives/scale/io.ts';
import {
  accountId,
  era,
  hash,
  multiAddress,
  multiSignature,
  perbill,
  weight,
  ZERO_HASH,
} from '../../runtime/primitives/types.ts';
import { createWorld, genesisOf } from '../runtime/pallets/world.ts';
import { encodingOf, mutate } from './inputs.ts';
import { assembly, outer } from './ledger.ts';
import { Random } from './random.ts';

/** What is wrong, if anything is; or that there was nothing to compare. */
type Finding = string | 'out of bounds' | undefined;

/** One type as both know it. */
export interface Pair {
  readonly name: string;
  readonly codec: Codec<unknown>;
  /** Name of the type in the registry of @polkadot/types. */
  readonly theirs: string;
  /** It is one of the runtime's, which may be bounded. */
  readonly isOurs: boolean;
  /** Values of it are made by their library from ours, too. */
  readonly byValue: boolean;
}

/** An address as the metadata has it. */
const PLAIN_ADDRESS = {
  _enum: { Id: 'AccountId', Index: 'Null', Raw: 'Bytes', Address32: 'H256', Address20: 'H160' },
};

/**
 * Their registry with this runtime's types in it. Their own MultiAddress guesses by the length of what is left of the input
 * and takes the index for a number; `plainAddresses` has it as the metadata says.
 */
export async function registryOf({ plainAddresses = true } = {}): Promise<TypeRegistry> {
  const world = await createWorld(genesisOf({}), ZERO_HASH);
  const answer = world.runtime.call(world.host, 'Metadata_metadata_at_version', encode(u32, 14));
  await world.close();
  const registry = new TypeRegistry();
  if (plainAddresses) registry.register({ MultiAddress: PLAIN_ADDRESS });
  registry.setMetadata(new Metadata(registry, toHex(decode(option(bytes()), answer)!)));
  return registry;
}

const CASES = JSON.stringify({
  _enum: { Plain: 'Null', Number: 'Compact<u32>', Named: { owner: 'AccountId32', amount: 'Compact<u128>' } },
});
const cases = variants({
  Plain: null,
  Number: compact(u32),
  Named: struct({ owner: accountId, amount: compact(u128) }),
});

/** Types that stand for themselves, with their names in their library. */
const GENERIC: readonly (readonly [Codec<unknown>, string])[] = [
  [bool, 'bool'],
  [u8, 'u8'],
  [u16, 'u16'],
  [u32, 'u32'],
  [u64, 'u64'],
  [u128, 'u128'],
  [i8, 'i8'],
  [i32, 'i32'],
  [i64, 'i64'],
  [i128, 'i128'],
  [compact(u8), 'Compact<u8>'],
  [compact(u16), 'Compact<u16>'],
  [compact(u32), 'Compact<u32>'],
  [compact(u64), 'Compact<u64>'],
  [compact(u128), 'Compact<u128>'],
  [bytes(), 'Bytes'],
  [text(), 'Text'],
  [fixedBytes(32), '[u8;32]'],
  [fixedBytes(5), '[u8;5]'],
  [hash, 'H256'],
  [accountId, 'AccountId32'],
  [perbill, 'Perbill'],
  [weight, 'SpWeightsWeightV2Weight'],
  [option(u32), 'Option<u32>'],
  [option(text()), 'Option<Text>'],
  [result(u64, text()), 'Result<u64, Text>'],
  [tuple(u8, tuple(compact(u64), tuple(bool, text()))), '(u8,(Compact<u64>,(bool,Text)))'],
  [vec(u16), 'Vec<u16>'],
  [vec(vec(option(compact(u128)))), 'Vec<Vec<Option<Compact<u128>>>>'],
  [vec(tuple(accountId, u128)), 'Vec<(AccountId32,u128)>'],
  [array(u32, 7), '[u32;7]'],
  [array(tuple(u8, u16), 3), '[(u8,u16);3]'],
  [pairs(u32, bytes()), 'Vec<(u32,Bytes)>'],
  [struct({ first: u8, second: option(text()) }), JSON.stringify({ first: 'u8', second: 'Option<Text>' })],
  [cases, CASES],
  [vec(cases), `Vec<${CASES}>`],
  [multiAddress, 'MultiAddress'],
  [multiSignature, 'MultiSignature'],
  [header, 'Header'],
] as readonly (readonly [Codec<unknown>, string])[];

/** Every type of ours that both know: those for themselves, all of storage, calls and events. */
export function pairsOf(registry: TypeRegistry): readonly Pair[] {
  const generic = GENERIC.map(
    ([codec, theirs]): Pair => ({
      name: theirs,
      codec,
      theirs,
      byValue: true,
      isOurs: false,
    }),
  );
  const { pallets } = registry.metadata;
  const stored = assembly.pallets.flatMap((pallet): Pair[] => {
    const shown = pallets.find(({ name }) => `${name}` === pallet.name)!.storage.unwrapOr(undefined);
    return (pallet.storage === undefined ? [] : itemsOf(pallet.storage)).flatMap(([item, { keys, value }]) => {
      const { type } = shown!.items.find(({ name }) => `${name}` === item)!;
      const name = `${pallet.name}.${item}`;
      const typeOf = (id: Parameters<typeof registry.createLookupType>[0]) => registry.createLookupType(id);
      const pair = { name, codec: value as Codec<unknown>, byValue: true, isOurs: true };
      if (type.isPlain) return [{ ...pair, theirs: typeOf(type.asPlain) }];
      const key = typeOf(type.asMap.key);
      const key0 = keys.length === 1 ? keys[0]!.codec : tuple(...keys.map(({ codec }) => codec));
      return [
        { ...pair, theirs: typeOf(type.asMap.value) },
        { ...pair, name: `${name}, key`, codec: key0 as Codec<unknown>, theirs: key },
      ];
    });
  });
  return [
    ...generic,
    { name: 'era', codec: era as Codec<unknown>, theirs: 'ExtrinsicEra', byValue: false, isOurs: false },
    { name: 'call', codec: assembly.call as Codec<unknown>, theirs: 'Call', byValue: false, isOurs: true },
    { name: 'event', codec: assembly.event as Codec<unknown>, theirs: 'Event', byValue: false, isOurs: true },
    // They put the keys of a map in order as they read it, which nobody else does.
    ...stored.filter(({ theirs }) => !registry.createType(theirs).toRawType().includes('BTreeMap')),
  ];
}

/** Limits of lengths and ranges that types do not tell: their library knows none of them. */
const isBound = (problem: unknown): boolean =>
  problem instanceof ScaleError && (problem.code === 'OUT_OF_RANGE' || problem.code === 'TOO_LONG');

/** A value of ours as their constructors take values: hex, decimal numbers, enums as objects of one key. */
function plain(value: unknown): unknown {
  if (value === undefined) return null;
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (value instanceof Uint8Array) return toHex(value);
  if (ArrayBuffer.isView(value)) return [...(value as Int8Array)];
  if (Array.isArray(value)) return value.map(plain);
  const { type, value: inner, ok, error, pallet, reason, ...rest } = value as Record<string, unknown>;
  // A reason to hold is two indices here, an enum in an enum there, which takes bytes as well.
  if (typeof pallet === 'number' && typeof reason === 'number') return toHex(Uint8Array.of(pallet, reason));
  if (Object.keys(rest).length === 0) {
    if (ok === true) return { Ok: plain(inner) };
    if (ok === false) return { Err: plain(error) };
    if (typeof type === 'string') return 'value' in value ? { [type]: plain(inner) } : { [type]: null };
  }
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plain(each)]));
}

/** What holds a call is built from its bytes: their constructors know no other way. */
const holdsCall = (raw: string): boolean => /Call/.test(raw);

/** Arguments of a call, each made anew by them from our value. */
function checkArguments(registry: TypeRegistry, call: GenericCall, value: unknown): string | undefined {
  const { type: section, value: inner } = value as { type: string; value: { type: string; value?: object } };
  const { type: method, value: args = {} } = inner;
  if (call.section.toLowerCase() !== section.toLowerCase() || call.method !== stringCamelCase(method)) {
    return `${section}.${method} is ${call.section}.${call.method} there`;
  }
  const given = Object.values(args);
  for (const [i, theirs] of call.args.entries()) {
    const field = call.meta.fields[i]!;
    if (holdsCall(theirs.toRawType())) continue;
    const made = registry.createType(registry.createLookupType(field.type), plain(given[i])).toU8a();
    if (!equalBytes(made, theirs.toU8a())) {
      return `${section}.${method}, ${field.name.unwrapOr(i)}: ${toHex(made)} is made there, not ${theirs.toHex()}`;
    }
  }
  return undefined;
}

/**
 * A value made at random: both must read and write the same bytes, and what they make of our value must be those bytes.
 * Returns what is wrong.
 */
export function compareValue(registry: TypeRegistry, pair: Pair, random: Random): Finding {
  const { name, codec, theirs, byValue, isOurs } = pair;
  const made = name === 'era' ? eraOf(random) : encodingOf(codec.type, random, outer);
  const wrong = (what: string): string => `${name}, ${toHex(made)}: ${what}`;
  let value: unknown;
  try {
    value = decode(codec, made);
  } catch (problem) {
    if (isOurs && isBound(problem)) return 'out of bounds';
    throw problem;
  }
  if (!equalBytes(encode(codec, value), made)) return wrong('we write other bytes than we read');
  const read = registry.createType(theirs, made);
  if (!equalBytes(read.toU8a(), made)) return wrong(`they write ${toHex(read.toU8a())}`);
  if (name === 'call') {
    const found = checkArguments(registry, read as unknown as GenericCall, value);
    if (found !== undefined) return wrong(found);
  }
  if (byValue && !holdsCall(read.toRawType())) {
    const built = registry.createType(theirs, plain(value)).toU8a();
    if (!equalBytes(built, made)) return wrong(`of our value they make ${toHex(built)}`);
  }
  return undefined;
}

function eraOf(random: Random): Uint8Array {
  if (random.chance(0.1)) return Uint8Array.of(0);
  const power = 2 + random.below(15);
  const period = 2 ** power;
  const step = Math.max(period >> 12, 1);
  const phase = random.below(period / step) * step;
  return encode(era, { type: 'Mortal', period, phase });
}

/**
 * Bent bytes: accepted here exactly if they can read them and would write them so. That they would is asked because they
 * take much that is no encoding of anything: see {@link LAXITIES}.
 */
export function compareVerdict(registry: TypeRegistry, pair: Pair, random: Random): Finding {
  const { name, codec, theirs, isOurs } = pair;
  const honest = name === 'era' ? eraOf(random) : encodingOf(codec.type, random, outer);
  const bent = random.chance(0.15) ? random.bytes(random.length(64)) : mutate(honest, random);
  const refusal = refusalOf(codec, bent);
  const here = refusal === undefined;
  const there = acceptsThere(registry, theirs, bent);
  if (here === there) return undefined;
  if (there && isOurs && isBound(refusal)) return 'out of bounds';
  return `${name}, ${toHex(bent)}: ${here ? 'accepted' : 'refused'} here, ${there ? 'accepted' : 'refused'} there`;
}

/** Why the bytes are refused here; undefined if they are not. */
export function refusalOf(codec: Codec<unknown>, input: Uint8Array): ScaleError | undefined {
  try {
    decode(codec, input);
    return undefined;
  } catch (problem) {
    if (problem instanceof ScaleError) return problem;
    throw problem;
  }
}

/** Whether they read the bytes at all. */
export function readsThere(registry: TypeRegistry, theirs: string, input: Uint8Array): boolean {
  try {
    registry.createTypeUnsafe(theirs, [input]);
    return true;
  } catch {
    return false;
  }
}

function acceptsThere(registry: TypeRegistry, theirs: string, input: Uint8Array): boolean {
  try {
    return equalBytes(registry.createTypeUnsafe(theirs, [input]).toU8a(), input);
  } catch {
    return false;
  }
}

/** What they read without a word though it encodes nothing, and how we refuse it. */
export const LAXITIES: readonly (readonly [
  what: string,
  theirs: string,
  codec: Codec<unknown>,
  input: Uint8Array,
  code: ScaleErrorCode,
])[] = [
  ['bytes after the value', 'u32', u32 as Codec<unknown>, Uint8Array.of(1, 2, 3, 4, 5), 'TRAILING_BYTES'],
  ['an integer that ends early', 'u32', u32 as Codec<unknown>, Uint8Array.of(1, 2), 'UNEXPECTED_END'],
  [
    'a compact integer in more bytes than it needs',
    'Compact<u32>',
    compact(u32) as Codec<unknown>,
    Uint8Array.of(1, 0),
    'NON_CANONICAL',
  ],
  ['a boolean that is neither', 'bool', bool as Codec<unknown>, Uint8Array.of(2), 'INVALID_BOOL'],
  ['text that is no UTF-8', 'Text', text() as Codec<unknown>, Uint8Array.of(0x04, 0xff), 'INVALID_UTF8'],
  [
    'an option that is neither',
    'Option<u32>',
    option(u32) as Codec<unknown>,
    Uint8Array.of(2, 1, 0, 0, 0),
    'INVALID_OPTION',
  ],
];

/**
 * What only the runtime writes, and reads with less than full suspicion: the list of events is appended to without being read,
 * and a reason to hold is two indices that are not looked up.
 */
const WRITTEN_HERE = /^(System.Events|Balances.(Holds|Freezes)|event)$/;

export interface Comparison {
  readonly disagreements: readonly string[];
  /** Inputs that only our bounds rule out. */
  readonly outOfBounds: number;
}

/** `count` values and as many bent ones, over all types in turn, until there are many disagreements. */
export function compare(registry: TypeRegistry, seed: number, from: number, count: number): Comparison {
  const all = pairsOf(registry);
  const call = all.find(({ name }) => name === 'call')!;
  const disagreements: string[] = [];
  let outOfBounds = 0;
  for (let i = from; i < from + count && disagreements.length < 20; i++) {
    const random = new Random('differential', seed, i);
    // Calls have more in them than all else.
    const pair = random.chance(0.3) ? call : all[i % all.length]!;
    for (const run of WRITTEN_HERE.test(pair.name) ? [compareValue] : [compareValue, compareVerdict]) {
      let found: Finding;
      try {
        found = run(registry, pair, random);
      } catch (problem) {
        found = `${pair.name}: ${String(problem)}`;
      }
      if (found === 'out of bounds') outOfBounds++;
      else if (found !== undefined) disagreements.push(`seed ${seed}, ${i}: ${found}`);
    }
  }
  return { disagreements, outOfBounds };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      from: { type: 'string', default: '0' },
      count: { type: 'string', default: '100000' },
    },
  });
  const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
  console.log(`seed ${seed}`);
  const { disagreements, outOfBounds } = compare(await registryOf(), seed, Number(values.from), Number(values.count));
  console.log(`${values.count} values and as many bent ones, ${outOfBounds} of them outside of our bounds`);
  for (const each of disagreements) console.log(each.slice(0, 4_000));
  process.exit(disagreements.length === 0 ? 0 : 1);
}
