/** Bytes as a string of one character a byte: a key for maps that is made at once, and that sorts as the bytes do. */
export const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
