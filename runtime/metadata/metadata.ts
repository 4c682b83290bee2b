/**
 * Metadata V14, V15 and V16 of a runtime (`frame-metadata`), all derived from the definitions. The three say the same in
 * different words, so one description is made first and then written down.
 */
import type { Assembly } from '../framework/assembly.ts';
import type { AnyExtension } from '../framework/extension.ts';
import type { ConstantDef, RuntimeApi } from '../framework/pallet.ts';
import { type Hasher, type ItemInfo, itemsOf, prefixOf } from '../framework/storage.ts';
import type { Host } from '../host.ts';
import { encode } from '../primitives/scale/codec.ts';
import { Sink } from '../primitives/scale/io.ts';
import type { TypeDef } from '../primitives/scale/type.ts';
import { multiAddress, multiSignature } from '../primitives/types.ts';
import { TypeRegistry, writeDocs, writeText, writeTypes, writeVec } from './registry.ts';

export const METADATA_VERSIONS = [14, 15, 16] as const;
export type MetadataVersion = (typeof METADATA_VERSIONS)[number];

const MAGIC = 0x6174656d;
/** Extrinsic formats that the runtime takes, the one that clients should make first. */
const EXTRINSIC_VERSIONS = [4, 5];

const HASHERS: readonly Hasher[] = [
  'Blake2_128',
  'Blake2_256',
  'Blake2_128Concat',
  'Twox128',
  'Twox256',
  'Twox64Concat',
  'Identity',
];

export interface MetadataSource {
  readonly assembly: Assembly;
  readonly extensions: readonly AnyExtension[];
  readonly apis: readonly RuntimeApi[];
}

/** Types of the whole runtime that definitions refer to by name (`kind: 'outer'`). */
export function outerTypes({ assembly, extensions }: Omit<MetadataSource, 'apis'>): (name: string) => TypeDef {
  const extra: TypeDef = { shape: { kind: 'tuple', of: extensions.map((each) => each.extra.type) } };
  const types: Readonly<Record<string, TypeDef>> = {
    Runtime: { path: [assembly.name, 'Runtime'], shape: { kind: 'composite', fields: [] } },
    RuntimeCall: assembly.call.type,
    RuntimeEvent: assembly.event.type,
    RuntimeError: assembly.errorType,
    RuntimeHoldReason: assembly.holdReasonType,
    RuntimeFreezeReason: assembly.freezeReasonType,
    Extra: extra,
    UncheckedExtrinsic: {
      path: ['sp_runtime', 'generic', 'unchecked_extrinsic', 'UncheckedExtrinsic'],
      params: [
        { name: 'Address', type: multiAddress.type },
        { name: 'Call', type: assembly.call.type },
        { name: 'Signature', type: multiSignature.type },
        { name: 'Extra', type: extra },
      ],
      shape: {
        kind: 'composite',
        fields: [{ type: { shape: { kind: 'sequence', of: { shape: { kind: 'primitive', name: 'u8' } } } } }],
      },
    },
  };
  return (name) => {
    const type = types[name];
    if (type === undefined) throw new Error(`no outer type ${name}`);
    return type;
  };
}

type StorageKind =
  | { readonly type: 'plain'; readonly value: number }
  | { readonly type: 'map'; readonly hashers: readonly Hasher[]; readonly key: number; readonly value: number };

/** What the metadata says, before it is written down in one version's words. Types are numbered provisionally. */
export type Description = ReturnType<typeof describe>;

/** Constants are read from the host's state. */
export function describe(source: MetadataSource, version: MetadataVersion, host: Host) {
  const { assembly, extensions, apis } = source;
  const outer = outerTypes(source);
  const registry = new TypeRegistry(outer);

  const storageKind = (info: ItemInfo): StorageKind => {
    const value = registry.add(info.value.type);
    if (info.keys.length === 0) return { type: 'plain', value };
    const [first, ...more] = info.keys.map(({ codec }) => codec.type);
    const key = more.length === 0 ? (first as TypeDef) : tupleOf([first as TypeDef, ...more]);
    return { type: 'map', hashers: info.keys.map(({ hasher }) => hasher), key: registry.add(key), value };
  };
  const added = (type: TypeDef | undefined): number | undefined =>
    type === undefined ? undefined : registry.add(type);

  const pallets = assembly.pallets.map((spec) => {
    const types = assembly.types.get(spec.name) ?? {};
    return {
      spec,
      storage: spec.storage && {
        prefix: prefixOf(spec.storage),
        items: itemsOf(spec.storage).map(([name, info]) => ({ name, info, kind: storageKind(info) })),
      },
      calls: added(types.call),
      events: added(types.event),
      errors: added(types.error),
      constants: Object.entries(spec.constants ?? {}).map(([name, constant]) => ({
        name,
        type: registry.add(constant.codec.type),
        value: encode(constant.codec, constant.value(host)),
        constant,
      })),
    };
  });
  const outerId = (name: string): number => registry.add(outer(name));
  const extrinsic = {
    type: outerId('UncheckedExtrinsic'),
    address: registry.add(multiAddress.type),
    call: outerId('RuntimeCall'),
    signature: registry.add(multiSignature.type),
    extra: outerId('Extra'),
    extensions: extensions.map(({ name, extra, implicit }) => ({
      name,
      type: registry.add(extra.type),
      implicit: registry.add(implicit.type),
    })),
  };
  const runtime = outerId('Runtime');
  const enums = [outerId('RuntimeCall'), outerId('RuntimeEvent'), outerId('RuntimeError')];
  const described =
    version === 14
      ? []
      : apis.map((api) => ({
          api,
          methods: Object.entries(api.methods).map(([name, method]) => ({
            name,
            docs: method.docs,
            inputs: method.inputs.map(([input, codec]) => ({ name: input, type: registry.add(codec.type) })),
            output: registry.add(method.output.type),
          })),
        }));
  return { pallets, extrinsic, runtime, enums, described, ...registry.close() };
}

/** Encoded metadata, and where in it the constants stand that the state says: they differ between chains, and nothing else does. */
export interface MetadataTemplate {
  readonly bytes: Uint8Array;
  readonly constants: readonly { readonly at: number; readonly length: number; readonly constant: ConstantDef }[];
}

/** The metadata of a template with the constants of the host's state; undefined where one of them has another length. */
export function filledIn({ bytes, constants }: MetadataTemplate, host: Host): Uint8Array | undefined {
  const filled = bytes.slice();
  for (const { at, length, constant } of constants) {
    const value = encode(constant.codec, constant.value(host));
    if (value.length !== length) return undefined;
    filled.set(value, at);
  }
  return filled;
}

/** The encoded metadata, prefixed by its magic number and version. Constants are read from the host's state. */
export function metadata(source: MetadataSource, version: MetadataVersion, host: Host): MetadataTemplate {
  const { pallets, extrinsic, runtime, enums, described, types, idOf } = describe(source, version, host);
  const sink = new Sink(256 * 1024);
  const places: { at: number; length: number; constant: ConstantDef }[] = [];
  const id = (provisional: number): void => sink.compact(idOf(provisional));
  const bytes = (value: Uint8Array): void => {
    sink.compact(value.length);
    sink.bytes(value);
  };
  const optional = <T>(value: T | undefined, write: (value: T) => void): void => {
    sink.u8(value === undefined ? 0 : 1);
    if (value !== undefined) write(value);
  };
  const text = (value: string): void => writeText(sink, value);
  const docs = (value: string | undefined): void => writeDocs(sink, value);
  const list = <T>(items: readonly T[], write: (item: T) => void): void => writeVec(sink, items, write);
  /** Nothing here is deprecated; the later formats want it said of each thing. */
  const notDeprecated = (): void => {
    if (version === 16) sink.u8(0);
  };
  const enumType = (type: number): void => {
    id(type);
    notDeprecated();
  };

  sink.u32(MAGIC);
  sink.u8(version);
  writeTypes(sink, types, idOf);
  list(pallets, ({ spec, storage, calls, events, errors, constants }) => {
    text(spec.name);
    optional(storage, ({ prefix, items }) => {
      text(prefix);
      list(items, ({ name, info, kind }) => {
        text(name);
        sink.u8(info.modifier === 'Optional' ? 0 : 1);
        if (kind.type === 'plain') {
          sink.u8(0);
          id(kind.value);
        } else {
          sink.u8(1);
          list(kind.hashers, (hasher) => sink.u8(HASHERS.indexOf(hasher)));
          id(kind.key);
          id(kind.value);
        }
        bytes(info.fallback);
        docs(info.docs);
        notDeprecated();
      });
    });
    optional(calls, enumType);
    optional(events, enumType);
    list(constants, (each) => {
      text(each.name);
      id(each.type);
      bytes(each.value);
      const { length } = each.value;
      if (each.constant.fromState) places.push({ at: sink.length - length, length, constant: each.constant });
      docs(each.constant.docs);
      notDeprecated();
    });
    optional(errors, enumType);
    if (version === 16) {
      list([], () => {}); // associated types
      list([], () => {}); // view functions
    }
    sink.u8(spec.index);
    if (version >= 15) docs(spec.docs);
    notDeprecated();
  });

  const extensionList = (): void =>
    list(extrinsic.extensions, ({ name, type, implicit }) => {
      text(name);
      id(type);
      id(implicit);
    });
  switch (version) {
    case 14:
      id(extrinsic.type);
      sink.u8(EXTRINSIC_VERSIONS[0] as number);
      extensionList();
      id(runtime);
      return { bytes: sink.finish(), constants: places };
    case 15:
      sink.u8(EXTRINSIC_VERSIONS[0] as number);
      for (const type of [extrinsic.address, extrinsic.call, extrinsic.signature, extrinsic.extra]) id(type);
      extensionList();
      id(runtime);
      break;
    case 16:
      list(EXTRINSIC_VERSIONS, (each) => sink.u8(each));
      for (const type of [extrinsic.address, extrinsic.call, extrinsic.signature]) id(type);
      list([0], (extensionVersion) => {
        sink.u8(extensionVersion);
        list(extrinsic.extensions, (each) => sink.compact(extrinsic.extensions.indexOf(each)));
      });
      extensionList();
      break;
  }
  list(described, ({ api, methods }) => {
    text(api.name);
    list(methods, (method) => {
      text(method.name);
      list(method.inputs, ({ name, type }) => {
        text(name);
        id(type);
      });
      id(method.output);
      docs(method.docs);
      notDeprecated();
    });
    docs(api.docs);
    if (version === 16) sink.compact(api.version);
    notDeprecated();
  });
  for (const each of enums) id(each);
  list([], () => {}); // custom entries
  return { bytes: sink.finish(), constants: places };
}

const tupleOf = (of: readonly TypeDef[]): TypeDef => ({ shape: { kind: 'tuple', of } });
