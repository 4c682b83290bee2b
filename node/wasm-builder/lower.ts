/**
 * Instructions of one function body, passed through one by one: indices are given anew, and what WebAssembly's first version
 * lacks becomes what it has. Light clients take the first version alone (smoldot 3.4 refuses sign extension, bulk memory,
 * saturating conversions). (Core specification 2.0, 5.4.)
 */
import { WasmFormatError, WasmReader, WasmWriter } from './binary.ts';

/** Functions that stand in for instructions. Indices of the module that is written. */
export interface Substitutes {
  readonly memorySize: number;
  readonly memoryGrow: number;
  readonly memoryCopy: number;
  readonly memoryFill: number;
  /** Saturating conversions by their number behind the prefix 0xfc (0 to 7). */
  readonly saturating: ReadonlyMap<number, number>;
}

export interface Renumbering {
  readonly type: (index: number) => number;
  readonly function: (index: number) => number;
  readonly global: (index: number) => number;
  /** Undefined: these instructions are left alone, or refused where the first version lacks them. */
  readonly substitutes?: Substitutes;
  /** Instructions that are put at the start of the body and of each loop: they leave the stack as it was. */
  readonly toll?: Uint8Array;
}

const I32_CONST = 0x41;
const I64_CONST = 0x42;
/** Sign extension as two shifts: operator, width that is lost, shift left, shift right. */
const EXTENSIONS: Readonly<Record<number, readonly [constant: number, shift: number, left: number, right: number]>> = {
  192: [I32_CONST, 24, 0x74, 0x75],
  193: [I32_CONST, 16, 0x74, 0x75],
  194: [I64_CONST, 56, 0x86, 0x87],
  195: [I64_CONST, 48, 0x86, 0x87],
  196: [I64_CONST, 32, 0x86, 0x87],
};

const LOOP = 0x03;
const CALL = 0x10;
const CALL_INDIRECT = 0x11;

export function rewriteBody(body: Uint8Array, numbers: Renumbering): Uint8Array {
  const reader = new WasmReader(body);
  const out = new WasmWriter();
  let copied = 0;
  /** Writes what was passed over unchanged, up to `to`. */
  const flush = (to: number): void => {
    out.bytes(body.subarray(copied, to));
  };
  for (let groups = reader.u32(); groups > 0; groups--) {
    reader.u32();
    reader.byte();
  }
  const toll = (): void => {
    if (numbers.toll === undefined) return;
    flush(reader.at);
    copied = reader.at;
    out.bytes(numbers.toll);
  };
  toll();
  while (!reader.done) {
    const start = reader.at;
    const opcode = reader.byte();
    const replace = (write: () => void): void => {
      flush(start);
      write();
      copied = reader.at;
    };
    if (opcode === CALL) {
      const index = reader.u32();
      replace(() => out.byte(CALL).u32(numbers.function(index)));
    } else if (opcode === CALL_INDIRECT) {
      const type = reader.u32();
      if (reader.u32() !== 0) throw new WasmFormatError('a call through another table than the first');
      // One byte for the table: linkers leave five for it, which the first version does not allow.
      replace(() => out.byte(CALL_INDIRECT).u32(numbers.type(type)).byte(0));
    } else if (opcode === 0x23 || opcode === 0x24) {
      const index = reader.u32();
      replace(() => out.byte(opcode).u32(numbers.global(index)));
    } else if (opcode === 0x3f || opcode === 0x40) {
      reader.byte();
      const { substitutes } = numbers;
      if (substitutes === undefined) continue;
      replace(() => out.byte(CALL).u32(opcode === 0x3f ? substitutes.memorySize : substitutes.memoryGrow));
    } else if (EXTENSIONS[opcode] !== undefined) {
      const [constant, shift, left, right] = EXTENSIONS[opcode];
      replace(() => out.byte(constant).s32(shift).byte(left).byte(constant).s32(shift).byte(right));
    } else if (opcode === 0xfc) {
      const which = substituteOf(reader, numbers);
      replace(() => out.byte(CALL).u32(which));
    } else {
      skipImmediates(opcode, reader);
      if (opcode === LOOP) toll();
    }
  }
  flush(body.length);
  return out.finish();
}

function substituteOf(reader: WasmReader, { substitutes }: Renumbering): number {
  const which = reader.u32();
  if (which === 10) reader.take(2);
  else if (which === 11) reader.take(1);
  const found =
    which === 10
      ? substitutes?.memoryCopy
      : which === 11
        ? substitutes?.memoryFill
        : substitutes?.saturating.get(which);
  if (found === undefined) throw new WasmFormatError(`instruction 0xfc ${which}`);
  return found;
}

/** Immediates of an instruction of the first version that holds no index of a function, type or global. */
function skipImmediates(opcode: number, reader: WasmReader): void {
  if (opcode >= 0x02 && opcode <= 0x04) {
    const type = reader.byte();
    // One byte: nothing, or one value. More than a byte would be the index of a type (multi-value).
    if (type !== 0x40 && (type < 0x7c || type > 0x7f)) throw new WasmFormatError(`a block of type ${type}`);
  } else if (opcode === 0x0c || opcode === 0x0d || (opcode >= 0x20 && opcode <= 0x22)) reader.u32();
  else if (opcode === 0x0e) {
    reader.list(() => reader.u32());
    reader.u32();
  } else if (opcode >= 0x28 && opcode <= 0x3e) {
    reader.u32();
    reader.u32();
  } else if (opcode === I32_CONST || opcode === I64_CONST) reader.skipSigned();
  else if (opcode === 0x43) reader.take(4);
  else if (opcode === 0x44) reader.take(8);
  else if (!PLAIN(opcode)) throw new WasmFormatError(`instruction 0x${opcode.toString(16)}`);
}

/** Instructions without immediates: unreachable, nop, else, end, return, drop, select, comparisons and arithmetic. */
const PLAIN = (opcode: number): boolean =>
  opcode === 0x00 ||
  opcode === 0x01 ||
  opcode === 0x05 ||
  opcode === 0x0b ||
  opcode === 0x0f ||
  opcode === 0x1a ||
  opcode === 0x1b ||
  (opcode >= 0x45 && opcode <= 0xbf);
