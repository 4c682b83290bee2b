/** What a pallet looks like from outside, by the metadata: names, indices, and how everything is encoded. */
import { Metadata, TypeRegistry } from '@polkadot/types';
import type { PortableRegistry } from '@polkadot/types/metadata';

/** Types that every chain has its own of. */
const OWN = new Set([
  'MultiAddress',
  'RuntimeCall',
  'RuntimeEvent',
  'OriginCaller',
  'ProxyType',
  'SessionKeys',
  'DispatchError',
]);

/** The encoding of a type in words: named types by what they are made of, so that `BoundedVec<T>` is `Vec<T>`. */
function describe(lookup: PortableRegistry, id: Parameters<PortableRegistry['getSiType']>[0]): string {
  const { path, def } = lookup.getSiType(id);
  const own = path.length > 0 ? `${path[path.length - 1]}` : '';
  if (OWN.has(own)) return own;
  const of = (type: typeof id): string => describe(lookup, type);
  if (def.isPrimitive) return def.asPrimitive.type;
  if (def.isCompact) return `Compact<${of(def.asCompact.type)}>`;
  if (def.isSequence) return `Vec<${of(def.asSequence.type)}>`;
  if (def.isArray) return `[${of(def.asArray.type)}; ${def.asArray.len}]`;
  if (def.isTuple) return `(${def.asTuple.map(of).join(', ')})`;
  if (def.isComposite) {
    const { fields } = def.asComposite;
    if (fields.length === 1 && fields[0]!.name.isNone) return of(fields[0]!.type);
    return `{${fields.map(({ name, type }) => `${name.unwrapOr('')}: ${of(type)}`).join(', ')}}`;
  }
  const { variants } = def.asVariant;
  return `enum(${variants
    .map(({ name, index, fields }) => `${index} ${name}${fields.map(({ type }) => ` ${of(type)}`).join('')}`)
    .join(' | ')})`;
}

interface Item {
  readonly index: number;
  readonly name: string;
  readonly fields: readonly string[];
}
export interface PalletShape {
  readonly calls: readonly Item[];
  readonly events: readonly Item[];
  readonly errors: readonly Item[];
  readonly storage: Readonly<Record<string, string>>;
  readonly constants: Readonly<Record<string, string>>;
}

/** Of encoded metadata, version 14 or later. */
export function shapesOf(encoded: `0x${string}`, names: readonly string[]): Record<string, PalletShape> {
  const { pallets, lookup } = new Metadata(new TypeRegistry(), encoded).asLatest;
  const items = (type: { type: Parameters<PortableRegistry['getSiType']>[0] } | undefined): Item[] =>
    type === undefined
      ? []
      : lookup
          .getSiType(type.type)
          .def.asVariant.variants.map(({ index, name, fields }) => ({
            index: index.toNumber(),
            name: `${name}`,
            fields: fields.map((field) => `${field.name.unwrapOr('')}: ${describe(lookup, field.type)}`),
          }))
          .sort((a, b) => a.index - b.index);
  return Object.fromEntries(
    pallets
      .filter(({ name }) => names.includes(`${name}`))
      .map((pallet): [string, PalletShape] => [
        `${pallet.name}`,
        {
          calls: items(pallet.calls.unwrapOr(undefined)),
          events: items(pallet.events.unwrapOr(undefined)),
          errors: items(pallet.errors.unwrapOr(undefined)),
          storage: Object.fromEntries(
            (pallet.storage.isSome ? [...pallet.storage.unwrap().items] : []).map(({ name, modifier, type }) => [
              `${name}`,
              type.isPlain
                ? `${modifier} ${describe(lookup, type.asPlain)}`
                : `${modifier} ${type.asMap.hashers.map(String).join('+')} ${describe(lookup, type.asMap.key)} => ${describe(lookup, type.asMap.value)}`,
            ]),
          ),
          constants: Object.fromEntries(pallet.constants.map(({ name, type }) => [`${name}`, describe(lookup, type)])),
        },
      ]),
  );
}

/** Metadata without what stands in front of it: the length of the byte string, the `Some` of an option. */
export function opaqueMetadataOf(encoded: Uint8Array | string): `0x${string}` {
  const hex = typeof encoded === 'string' ? encoded : Buffer.from(encoded).toString('hex');
  return `0x${hex.slice(hex.indexOf('6d657461'))}`;
}
