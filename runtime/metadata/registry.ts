/** The portable type registry of `scale-info`: every type once, in the order first met, referred to by number. */
import { utf8 } from '../primitives/bytes.ts';
import type { Sink } from '../primitives/scale/io.ts';
import type { FieldDef, PrimitiveName, TypeDef, TypeShape } from '../primitives/scale/type.ts';

/** In the order of their indices. */
export const PRIMITIVES: readonly PrimitiveName[] = [
  'bool',
  'char',
  'str',
  'u8',
  'u16',
  'u32',
  'u64',
  'u128',
  'u256',
  'i8',
  'i16',
  'i32',
  'i64',
  'i128',
  'i256',
];

type Field = Omit<FieldDef, 'type'> & { readonly type: number };
type Shape =
  | { readonly kind: 'primitive'; readonly name: PrimitiveName }
  | { readonly kind: 'composite'; readonly fields: readonly Field[] }
  | {
      readonly kind: 'variant';
      readonly variants: readonly {
        readonly name: string;
        readonly index: number;
        readonly fields: readonly Field[];
        readonly docs: string | undefined;
      }[];
    }
  | { readonly kind: 'sequence' | 'compact'; readonly of: number }
  | { readonly kind: 'array'; readonly of: number; readonly length: number }
  | { readonly kind: 'tuple'; readonly of: readonly number[] };

/** A type whose parts are numbers of other types. */
export interface PortableType {
  readonly path: readonly string[];
  readonly params: readonly { readonly name: string; readonly type: number | undefined }[];
  readonly shape: Shape;
  readonly docs: string | undefined;
}

export const writeText = (sink: Sink, text: string): void => {
  const bytes = utf8(text);
  sink.compact(bytes.length);
  sink.bytes(bytes);
};
export const writeVec = <T>(sink: Sink, items: readonly T[], write: (item: T) => void): void => {
  sink.compact(items.length);
  for (const item of items) write(item);
};
/** Documentation is a list of lines. */
export const writeDocs = (sink: Sink, docs: string | undefined): void =>
  writeVec(sink, docs ? docs.split('\n') : [], (line) => writeText(sink, line));

export class TypeRegistry {
  readonly #outer: (name: string) => TypeDef;
  readonly #byObject = new Map<TypeDef, number>();
  readonly #byContent = new Map<string, number>();
  /** By provisional number; undefined while the type's parts are looked up. */
  readonly #types: (PortableType | undefined)[] = [];
  /** Provisional numbers given to a type that turned out to be there already. */
  readonly #same = new Map<number, number>();

  /** `outer` finds the types that only the assembled runtime knows. */
  constructor(outer: (name: string) => TypeDef) {
    this.#outer = outer;
  }

  /** The provisional number of a type; {@link close} says what it became. */
  add(type: TypeDef): number {
    if (type.shape.kind === 'outer') return this.add(this.#outer(type.shape.name));
    const known = this.#byObject.get(type);
    if (known !== undefined) return known;
    // A path is needed to end a recursion, so only types with one are noted before their parts.
    const reserved = type.path === undefined ? undefined : this.#reserve(type);
    const params = (type.params ?? []).map((each) => ({
      name: each.name,
      type: each.type === undefined ? undefined : this.add(each.type),
    }));
    const portable: PortableType = {
      path: type.path ?? [],
      params,
      shape: this.#shape(type.shape),
      docs: type.docs,
    };
    const content = JSON.stringify(portable);
    const twin = this.#byContent.get(content);
    if (twin !== undefined) {
      if (reserved !== undefined) {
        this.#same.set(reserved, twin);
        this.#byObject.set(type, twin);
      }
      return twin;
    }
    const id = reserved ?? this.#reserve(type);
    this.#types[id] = portable;
    this.#byContent.set(content, id);
    return id;
  }

  #reserve(type: TypeDef): number {
    const id = this.#types.push(undefined) - 1;
    this.#byObject.set(type, id);
    return id;
  }

  #fields(fields: readonly FieldDef[]): Field[] {
    return fields.map((field) => ({ ...field, type: this.add(field.type) }));
  }

  #shape(shape: TypeShape): Shape {
    switch (shape.kind) {
      case 'primitive':
        return shape;
      case 'composite':
        return { kind: 'composite', fields: this.#fields(shape.fields) };
      case 'variant':
        return {
          kind: 'variant',
          variants: shape.variants.map(({ name, index, fields, docs }) => ({
            name,
            index,
            fields: this.#fields(fields),
            docs,
          })),
        };
      case 'sequence':
      case 'compact':
        return { kind: shape.kind, of: this.add(shape.of) };
      case 'array':
        return { kind: 'array', of: this.add(shape.of), length: shape.length };
      case 'tuple':
        return { kind: 'tuple', of: shape.of.map((each) => this.add(each)) };
      case 'outer':
        throw new Error('outer types are resolved before');
    }
  }

  /** The types with final numbers, and what each provisional number became. */
  close(): { readonly types: readonly PortableType[]; readonly idOf: (provisional: number) => number } {
    const final = new Map<number, number>();
    const kept: PortableType[] = [];
    this.#types.forEach((type, provisional) => {
      if (type !== undefined) final.set(provisional, kept.push(type) - 1);
    });
    const idOf = (provisional: number): number => {
      const id = final.get(this.#same.get(provisional) ?? provisional);
      if (id === undefined) throw new Error(`type ${provisional} was never finished`);
      return id;
    };
    return { types: kept, idOf };
  }
}

function writeFields(sink: Sink, fields: readonly Field[], idOf: (id: number) => number): void {
  writeVec(sink, fields, (field) => {
    sink.u8(field.name === undefined ? 0 : 1);
    if (field.name !== undefined) writeText(sink, field.name);
    sink.compact(idOf(field.type));
    sink.u8(field.typeName === undefined ? 0 : 1);
    if (field.typeName !== undefined) writeText(sink, field.typeName);
    writeDocs(sink, field.docs);
  });
}

function writeShape(sink: Sink, shape: Shape, idOf: (id: number) => number): void {
  switch (shape.kind) {
    case 'composite':
      sink.u8(0);
      writeFields(sink, shape.fields, idOf);
      return;
    case 'variant':
      sink.u8(1);
      writeVec(sink, shape.variants, (variant) => {
        writeText(sink, variant.name);
        writeFields(sink, variant.fields, idOf);
        sink.u8(variant.index);
        writeDocs(sink, variant.docs);
      });
      return;
    case 'sequence':
      sink.u8(2);
      sink.compact(idOf(shape.of));
      return;
    case 'array':
      sink.u8(3);
      sink.u32(shape.length);
      sink.compact(idOf(shape.of));
      return;
    case 'tuple':
      sink.u8(4);
      writeVec(sink, shape.of, (each) => sink.compact(idOf(each)));
      return;
    case 'primitive':
      sink.u8(5);
      sink.u8(PRIMITIVES.indexOf(shape.name));
      return;
    case 'compact':
      sink.u8(6);
      sink.compact(idOf(shape.of));
      return;
  }
}

/** `PortableRegistry`: `Vec<PortableType>`. */
export function writeTypes(sink: Sink, types: readonly PortableType[], idOf: (id: number) => number): void {
  let next = 0;
  writeVec(sink, types, ({ path, params, shape, docs }) => {
    sink.compact(next++);
    writeVec(sink, path, (segment) => writeText(sink, segment));
    writeVec(sink, params, ({ name, type }) => {
      writeText(sink, name);
      sink.u8(type === undefined ? 0 : 1);
      if (type !== undefined) sink.compact(idOf(type));
    });
    writeShape(sink, shape, idOf);
    writeDocs(sink, docs);
  });
}
