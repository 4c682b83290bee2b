/** Results of methods as JSON text. */

/** A result that is JSON already. */
export class RawJson {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** Text for a result: bytes become hex, `undefined` becomes `null`. */
export function resultText(result: unknown): string {
  if (typeof result === 'string') return JSON.stringify(result);
  if (result === undefined || result === null) return 'null';
  if (result instanceof RawJson) return result.text;
  if (result instanceof Uint8Array) {
    return `"0x${Buffer.from(result.buffer, result.byteOffset, result.byteLength).toString('hex')}"`;
  }
  return JSON.stringify(result);
}
