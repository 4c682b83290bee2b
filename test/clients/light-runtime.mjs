/**
 * A runtime for light clients, which run what stands under `:code`: a WebAssembly module whose every entry point gives one
 * answer, prepared beforehand. Enough for a chain whose authorities and metadata stay; it says what version it is in custom
 * sections, as Substrate's do. The node itself does not look at it.
 */
import { concatBytes, utf8 } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { runtimeVersion } from '../../runtime/primitives/types.ts';

const PAGE = 65_536;
const [I32, I64, FUNCTION] = [0x7f, 0x7e, 0x60];
const SECTION = { custom: 0, type: 1, function: 3, memory: 5, global: 6, export: 7, code: 10, data: 11 };
const KIND = { function: 0, memory: 2, global: 3 };
const OP = { i32const: 0x41, i64const: 0x42, end: 0x0b };

function unsigned(value) {
  const out = [];
  let rest = value;
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) out.push((rest % 128) | 0x80);
  return Uint8Array.from([...out, rest]);
}

/** LEB128 of a signed number. */
function signed(value) {
  const out = [];
  for (let rest = BigInt(value); ; ) {
    const low = Number(rest & 0x7fn);
    rest >>= 7n;
    const last = (rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0);
    out.push(last ? low : low | 0x80);
    if (last) return Uint8Array.from(out);
  }
}

const sized = (content) => concatBytes(unsigned(content.length), content);
const vector = (items) => concatBytes(unsigned(items.length), ...items);
const section = (id, content) => concatBytes(Uint8Array.of(id), sized(content));
const custom = (name, content) => section(SECTION.custom, concatBytes(sized(utf8(name)), content));
const exported = (name, kind, index) => concatBytes(sized(utf8(name)), Uint8Array.of(kind), unsigned(index));

/** `version`: as the node tells it; `answers`: what each runtime API returns, whatever it is asked. */
export function lightRuntime(version, answers) {
  const start = 1_024;
  let at = start;
  const entries = Object.entries(answers).map(([name, answer]) => {
    const place = { name, answer, at };
    at += answer.length;
    return place;
  });
  const heap = Math.ceil(at / 16) * 16;
  // Length in the high half, address in the low one.
  const body = (entry) => {
    const value = (BigInt(entry.answer.length) << 32n) | BigInt(entry.at);
    return sized(concatBytes(unsigned(0), Uint8Array.of(OP.i64const), signed(value), Uint8Array.of(OP.end)));
  };
  return concatBytes(
    Uint8Array.of(0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0),
    section(SECTION.type, vector([Uint8Array.of(FUNCTION, 2, I32, I32, 1, I64)])),
    section(SECTION.function, vector(entries.map(() => unsigned(0)))),
    section(SECTION.memory, vector([concatBytes(Uint8Array.of(0), unsigned(Math.ceil(heap / PAGE) + 1))])),
    section(
      SECTION.global,
      vector([concatBytes(Uint8Array.of(I32, 0, OP.i32const), signed(heap), Uint8Array.of(OP.end))]),
    ),
    section(
      SECTION.export,
      vector([
        exported('memory', KIND.memory, 0),
        exported('__heap_base', KIND.global, 0),
        ...entries.map(({ name }, i) => exported(name, KIND.function, i)),
      ]),
    ),
    section(SECTION.code, vector(entries.map(body))),
    section(
      SECTION.data,
      vector(
        entries.map(({ at: place, answer }) =>
          concatBytes(Uint8Array.of(0, OP.i32const), signed(place), Uint8Array.of(OP.end), sized(answer)),
        ),
      ),
    ),
    custom('runtime_version', encode(runtimeVersion, { ...version, apis: [] })),
    custom(
      'runtime_apis',
      concatBytes(
        ...version.apis.map(([id, number]) => concatBytes(id, new Uint8Array(Uint32Array.of(number).buffer))),
      ),
    ),
  );
}
