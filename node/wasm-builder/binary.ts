/** The binary format of WebAssembly modules, read and written a section at a time. (Core specification 2.0, 5.) */

export class WasmFormatError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WasmFormatError';
  }
}

export const SECTION = {
  custom: 0,
  type: 1,
  import: 2,
  function: 3,
  table: 4,
  memory: 5,
  global: 6,
  export: 7,
  start: 8,
  element: 9,
  code: 10,
  data: 11,
  dataCount: 12,
} as const;

/** Reads forward through bytes. Throws {@link WasmFormatError} at their end. */
export class WasmReader {
  readonly bytes: Uint8Array;
  at: number;
  readonly end: number;

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }

  get done(): boolean {
    return this.at >= this.end;
  }

  byte(): number {
    if (this.at >= this.end) throw new WasmFormatError('the module ends early');
    return this.bytes[this.at++]!;
  }

  /** An unsigned LEB128 integer of at most 32 bits. */
  u32(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new WasmFormatError('an integer of more than 32 bits');
  }

  /** Passes over a signed LEB128 integer of any width. */
  skipSigned(): void {
    while (this.byte() >= 0x80);
  }

  take(count: number): Uint8Array {
    if (this.at + count > this.end) throw new WasmFormatError('the module ends early');
    const taken = this.bytes.subarray(this.at, this.at + count);
    this.at += count;
    return taken;
  }

  name(): string {
    return new TextDecoder('utf-8', { fatal: true }).decode(this.take(this.u32()));
  }

  list<T>(item: () => T): T[] {
    return Array.from({ length: this.u32() }, item);
  }
}

/** Collects bytes. */
export class WasmWriter {
  #bytes = new Uint8Array(1 << 16);
  #length = 0;

  #room(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }

  byte(value: number): this {
    this.#room(1);
    this.#bytes[this.#length++] = value;
    return this;
  }

  bytes(values: ArrayLike<number>): this {
    this.#room(values.length);
    this.#bytes.set(values, this.#length);
    this.#length += values.length;
    return this;
  }

  u32(value: number): this {
    let rest = value;
    while (rest >= 0x80) {
      this.byte((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    return this.byte(rest);
  }

  /** A signed LEB128 integer of 32 bits. */
  s32(value: number): this {
    let rest = value;
    for (;;) {
      const low = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0)) return this.byte(low);
      this.byte(low | 0x80);
    }
  }

  name(text: string): this {
    const encoded = new TextEncoder().encode(text);
    return this.u32(encoded.length).bytes(encoded);
  }

  list<T>(items: readonly T[], item: (writer: WasmWriter, value: T) => void): this {
    this.u32(items.length);
    for (const each of items) item(this, each);
    return this;
  }

  /** Bytes in front of which their count stands. */
  sized(bytes: Uint8Array): this {
    return this.u32(bytes.length).bytes(bytes);
  }

  section(id: number, content: Uint8Array): this {
    return this.byte(id).sized(content);
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}

export interface WasmImport {
  readonly module: string;
  readonly name: string;
  /** Index of its function type. */
  readonly type: number;
}

export interface WasmExport {
  readonly name: string;
  /** 0 function, 1 table, 2 memory, 3 global. */
  readonly kind: number;
  readonly index: number;
}

export interface WasmGlobal {
  readonly type: number;
  readonly mutable: boolean;
  /** Initial value. */
  readonly value: number;
}

export interface WasmElements {
  readonly offset: number;
  readonly functions: readonly number[];
}

/** What a linked module is made of. Only functions are imported; there is one memory. */
export interface WasmModule {
  /** Encoded function types. */
  readonly types: readonly Uint8Array[];
  readonly imports: readonly WasmImport[];
  /** Type of each function that the module defines. */
  readonly functions: readonly number[];
  readonly tables: readonly Uint8Array[];
  /** Pages that the memory begins with; undefined where it is imported or there is none. */
  readonly memoryPages: number | undefined;
  /** Pages that it may grow to; undefined: as many as the format allows. */
  readonly memoryMaxPages?: number;
  readonly globals: readonly WasmGlobal[];
  readonly exports: readonly WasmExport[];
  readonly elements: readonly WasmElements[];
  /** Bodies of functions: locals and instructions, without their length. */
  readonly bodies: readonly Uint8Array[];
  readonly data: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
}

const MAGIC = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
const I32 = 0x7f;
const FUNCREF = 0x70;

/** `i32.const n end`. */
function constantOf(reader: WasmReader): number {
  if (reader.byte() !== 0x41) throw new WasmFormatError('an initial value that is no i32 constant');
  let value = 0;
  let shift = 0;
  for (;;) {
    const byte = reader.byte();
    value |= (byte & 0x7f) << shift;
    shift += 7;
    if (byte < 0x80) {
      if (shift < 32 && (byte & 0x40) !== 0) value |= -1 << shift;
      break;
    }
  }
  if (reader.byte() !== 0x0b) throw new WasmFormatError('an initial value of several instructions');
  return value;
}

function importOf(reader: WasmReader): WasmImport {
  const [module, name, kind] = [reader.name(), reader.name(), reader.byte()];
  if (kind !== 0) throw new WasmFormatError(`${module}.${name} is imported and is no function`);
  return { module, name, type: reader.u32() };
}

/** Throws {@link WasmFormatError} for what it does not know: better than to pass it on wrongly. */
export function readModule(bytes: Uint8Array): WasmModule {
  const reader = new WasmReader(bytes);
  if (MAGIC.some((each) => reader.byte() !== each)) throw new WasmFormatError('not a WebAssembly module');
  const made = {
    types: [] as Uint8Array[],
    imports: [] as WasmImport[],
    functions: [] as number[],
    tables: [] as Uint8Array[],
    memoryPages: undefined as number | undefined,
    globals: [] as WasmGlobal[],
    exports: [] as WasmExport[],
    elements: [] as WasmElements[],
    bodies: [] as Uint8Array[],
    data: [] as { offset: number; bytes: Uint8Array }[],
  };
  while (!reader.done) {
    const id = reader.byte();
    const content = reader.take(reader.u32());
    const section = new WasmReader(content);
    const raw = (skip: () => void): Uint8Array => {
      const from = section.at;
      skip();
      return content.subarray(from, section.at);
    };
    switch (id) {
      case SECTION.custom:
      case SECTION.dataCount:
        continue;
      case SECTION.type:
        made.types = section.list(() =>
          raw(() => {
            if (section.byte() !== 0x60) throw new WasmFormatError('a type that is no function type');
            section.take(section.u32());
            section.take(section.u32());
          }),
        );
        break;
      case SECTION.import:
        made.imports = section.list(() => importOf(section));
        break;
      case SECTION.function:
        made.functions = section.list(() => section.u32());
        break;
      case SECTION.table:
        made.tables = section.list(() =>
          raw(() => {
            if (section.byte() !== FUNCREF) throw new WasmFormatError('a table that holds no functions');
            const limited = section.byte() === 1;
            section.u32();
            if (limited) section.u32();
          }),
        );
        break;
      case SECTION.memory:
        section.list(() => {
          const limited = section.byte() === 1;
          made.memoryPages = section.u32();
          if (limited) section.u32();
        });
        break;
      case SECTION.global:
        made.globals = section.list(() => {
          const [type, mutable] = [section.byte(), section.byte() === 1];
          if (type !== I32) throw new WasmFormatError('a global variable that is no i32');
          return { type, mutable, value: constantOf(section) };
        });
        break;
      case SECTION.export:
        made.exports = section.list(() => ({ name: section.name(), kind: section.byte(), index: section.u32() }));
        break;
      case SECTION.element:
        made.elements = section.list(() => {
          if (section.u32() !== 0) throw new WasmFormatError('elements that are not for the first table');
          return { offset: constantOf(section), functions: section.list(() => section.u32()) };
        });
        break;
      case SECTION.code:
        made.bodies = section.list(() => section.take(section.u32()));
        break;
      case SECTION.data:
        made.data = section.list(() => {
          if (section.u32() !== 0) throw new WasmFormatError('data that is not put into the memory at once');
          return { offset: constantOf(section), bytes: section.take(section.u32()) };
        });
        break;
      default:
        throw new WasmFormatError(`a section of kind ${id}`);
    }
    if (!section.done) throw new WasmFormatError(`bytes behind the end of section ${id}`);
  }
  return made;
}

/** `i32.const value end`, or the same of an i64. */
const putConstant = (writer: WasmWriter, value: number, type: number = I32): WasmWriter =>
  writer
    .byte(type === I32 ? 0x41 : 0x42)
    .s32(value)
    .byte(0x0b);

/** `custom`: sections that stand behind all others, by name. */
export function writeModule(module: WasmModule, custom: ReadonlyMap<string, Uint8Array> = new Map()): Uint8Array {
  const out = new WasmWriter().bytes(MAGIC);
  const section = (id: number, count: number, write: (writer: WasmWriter) => void): void => {
    if (count === 0) return;
    const writer = new WasmWriter().u32(count);
    write(writer);
    out.section(id, writer.finish());
  };
  const each = <T>(items: readonly T[], write: (writer: WasmWriter, item: T) => void) => {
    return (writer: WasmWriter): void => {
      for (const item of items) write(writer, item);
    };
  };
  section(
    SECTION.type,
    module.types.length,
    each(module.types, (w, type) => w.bytes(type)),
  );
  section(
    SECTION.import,
    module.imports.length,
    each(module.imports, (w, { module: from, name, type }) => w.name(from).name(name).byte(0).u32(type)),
  );
  section(
    SECTION.function,
    module.functions.length,
    each(module.functions, (w, type) => w.u32(type)),
  );
  section(
    SECTION.table,
    module.tables.length,
    each(module.tables, (w, table) => w.bytes(table)),
  );
  if (module.memoryPages !== undefined) {
    const { memoryPages, memoryMaxPages } = module;
    section(SECTION.memory, 1, (writer) => {
      writer.byte(memoryMaxPages === undefined ? 0 : 1).u32(memoryPages);
      if (memoryMaxPages !== undefined) writer.u32(memoryMaxPages);
    });
  }
  section(
    SECTION.global,
    module.globals.length,
    each(module.globals, (w, { type, mutable, value }) => putConstant(w.byte(type).byte(mutable ? 1 : 0), value, type)),
  );
  section(
    SECTION.export,
    module.exports.length,
    each(module.exports, (w, { name, kind, index }) => w.name(name).byte(kind).u32(index)),
  );
  section(
    SECTION.element,
    module.elements.length,
    each(module.elements, (w, { offset, functions }) =>
      putConstant(w.u32(0), offset).list(functions, (writer, index) => writer.u32(index)),
    ),
  );
  section(
    SECTION.code,
    module.bodies.length,
    each(module.bodies, (w, body) => w.sized(body)),
  );
  section(
    SECTION.data,
    module.data.length,
    each(module.data, (w, { offset, bytes }) => putConstant(w.u32(0), offset).sized(bytes)),
  );
  for (const [name, content] of custom) {
    out.section(SECTION.custom, new WasmWriter().name(name).bytes(content).finish());
  }
  return out.finish();
}
