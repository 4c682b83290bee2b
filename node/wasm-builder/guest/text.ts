/** `TextEncoder` and `TextDecoder` as the runtime uses them, in an engine that has neither. */

/** UTF-8 of a text, and a text of UTF-8 that is known to be well-formed: the glue does both. */
export interface TextFunctions {
  encode(text: string): Uint8Array;
  decode(bytes: Uint8Array): string;
}

/** Throws a `TypeError` for bytes that are no UTF-8. (Unicode 16, table 3-7.) */
function checkUtf8(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; ) {
    const lead = bytes[i++]!;
    if (lead < 0x80) continue;
    const more = lead >= 0xc2 && lead < 0xe0 ? 1 : (lead & 0xf0) === 0xe0 ? 2 : lead >= 0xf0 && lead < 0xf5 ? 3 : 0;
    const second = bytes[i];
    const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
    const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
    if (more === 0 || second === undefined || second < least || second > most) throw new TypeError('malformed UTF-8');
    for (let j = 1; j < more; j++) {
      const next = bytes[i + j];
      if (next === undefined || (next & 0xc0) !== 0x80) throw new TypeError('malformed UTF-8');
    }
    i += more;
  }
}

export function installText(text: TextFunctions): void {
  class Encoder {
    encode(value: string): Uint8Array {
      return text.encode(value.toWellFormed());
    }
  }
  class Decoder {
    decode(bytes: Uint8Array): string {
      checkUtf8(bytes);
      return text.decode(bytes);
    }
  }
  Object.assign(globalThis, { TextEncoder: Encoder, TextDecoder: Decoder });
}
