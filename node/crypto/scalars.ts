/** The order of the group that ed25519 and sr25519 work in: 2^252 + 27742317777372353535851937790883648493, little-endian. */
const ORDER = Uint8Array.of(
  0xed,
  0xd3,
  0xf5,
  0x5c,
  0x1a,
  0x63,
  0x12,
  0x58,
  0xd6,
  0x9c,
  0xf7,
  0xa2,
  0xde,
  0xf9,
  0xde,
  0x14,
  ...new Uint8Array(15),
  0x10,
);

/** Whether the 32 little-endian bytes at `at` are a number below the group's order; the last one is taken as `top`. */
export function isCanonicalScalar(bytes: Uint8Array, at: number, top = bytes[at + 31]!): boolean {
  if (top !== ORDER[31]) return top < ORDER[31]!;
  for (let i = 30; i >= 0; i--) {
    const difference = bytes[at + i]! - ORDER[i]!;
    if (difference !== 0) return difference < 0;
  }
  return false;
}
