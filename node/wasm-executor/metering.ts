/**
 * Bounds for code from the chain. Each function and each round of a loop takes a unit of fuel, and the code traps when there is none:
 * a call ends whatever the code does, and V8 need not be interrupted.
 */
import { readModule, SECTION, WasmFormatError, WasmReader, WasmWriter, writeModule } from '../wasm-builder/binary.ts';
import { rewriteBody } from '../wasm-builder/lower.ts';

const I64 = 0x7e;

/**
 * The module with a global variable of type i64 exported as `fuel`, and a memory of `maxPages` pages at most. Throws
 * {@link WasmFormatError}.
 */
export function metered(bytes: Uint8Array, fuel: string, maxPages: number): Uint8Array {
  const module = readModule(bytes);
  if (module.exports.some(({ name }) => name === fuel)) throw new WasmFormatError(`the code exports ${fuel} itself`);
  const global = module.globals.length;
  /** fuel -= 1; trap if below zero. */
  const toll = new WasmWriter()
    .byte(0x23)
    .u32(global)
    .bytes([0x42, 0x01, 0x7d, 0x24])
    .u32(global)
    .byte(0x23)
    .u32(global)
    .bytes([0x42, 0x00, 0x53, 0x04, 0x40, 0x00, 0x0b])
    .finish();
  const same = (index: number): number => index;
  const customs = customSections(bytes);
  return writeModule(
    {
      ...module,
      memoryMaxPages: maxPages,
      globals: [...module.globals, { type: I64, mutable: true, value: 0 }],
      exports: [...module.exports, { name: fuel, kind: 3, index: global }],
      bodies: module.bodies.map((body) => rewriteBody(body, { type: same, function: same, global: same, toll })),
    },
    customs,
  );
}

/** Sections that the engine does not read, by name. */
function customSections(bytes: Uint8Array): Map<string, Uint8Array> {
  const reader = new WasmReader(bytes, 8);
  const found = new Map<string, Uint8Array>();
  while (!reader.done) {
    const id = reader.byte();
    const content = reader.take(reader.u32());
    if (id !== SECTION.custom) continue;
    const section = new WasmReader(content);
    found.set(section.name(), content.subarray(section.at));
  }
  return found;
}
