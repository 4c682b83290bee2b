/**
 * How much a JSON text would be once parsed, counted over its bytes before anything is made of them: fourteen megabytes of `[`
 * take seconds and hundreds of megabytes to parse.
 */

export interface JsonBounds {
  /** Arrays and objects within each other. */
  readonly depth: number;
  /** Values and keys in all. */
  readonly values: number;
}

const QUOTE = 34;
const COMMA = 44;
const COLON = 58;
const OPEN_ARRAY = 91;
const BACKSLASH = 92;
const CLOSE_ARRAY = 93;
const OPEN_OBJECT = 123;
const CLOSE_OBJECT = 125;

/** The index after the string that begins before `from`. */
function afterString(text: Buffer, from: number): number {
  for (let at = from; ; ) {
    const end = text.indexOf(QUOTE, at);
    if (end < 0) return text.length;
    let escapes = 0;
    while (text[end - 1 - escapes] === BACKSLASH && end - 1 - escapes >= from) escapes++;
    if (escapes % 2 === 0) return end + 1;
    at = end + 1;
  }
}

/** Whether a text keeps within the bounds. Says nothing of whether it is JSON. */
export function isWithin(text: Buffer, { depth, values }: JsonBounds): boolean {
  let open = 0;
  let found = 1;
  for (let at = 0; at < text.length; ) {
    const byte = text[at++];
    if (byte === QUOTE) at = afterString(text, at);
    else if (byte === COMMA || byte === COLON) found++;
    else if (byte === OPEN_ARRAY || byte === OPEN_OBJECT) {
      found++;
      if (++open > depth) return false;
    } else if (byte === CLOSE_ARRAY || byte === CLOSE_OBJECT) open--;
    if (found > values) return false;
  }
  return true;
}
