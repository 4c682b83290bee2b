/** Aura's slots: time cut into equal pieces, each with one author (Polkadot specification, section 5). Times in milliseconds. */
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { AURA_ENGINE, type Digest, type DigestItem, type Header } from '../../runtime/primitives/header.ts';
import {
  decode,
  encode,
  fixedBytes,
  type Infer,
  u32,
  u64,
  variants,
  vec,
} from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';

export type Slot = number;

export const slotAt = (unixMs: number, slotMs: number): Slot => Math.floor(unixMs / slotMs);
export const slotStart = (slot: Slot, slotMs: number): number => slot * slotMs;
/** Which of `count` authorities makes the block of a slot. */
export const authorIndex = (slot: Slot, count: number): number => slot % count;

export const authorOf = (slot: Slot, authorities: readonly Uint8Array[]): Uint8Array | undefined =>
  authorities.length === 0 ? undefined : authorities[authorIndex(slot, authorities.length)];

export const slotDigest = (slot: Slot): DigestItem => ({
  type: 'PreRuntime',
  value: [AURA_ENGINE, encode(u64, BigInt(slot))],
});

export const SIGNATURE_BYTES = 64;
export const sealDigest = (signature: Uint8Array): DigestItem => ({ type: 'Seal', value: [AURA_ENGINE, signature] });

const authorityId = fixedBytes(32);
/** `sp_consensus_aura::ConsensusLog`. */
export const auraLog = variants({ AuthoritiesChange: [1, vec(authorityId)], OnDisabled: [2, u32] });
export type AuraLog = Infer<typeof auraLog>;

export const authoritiesChangeDigest = (authorities: readonly Uint8Array[]): DigestItem => ({
  type: 'Consensus',
  value: [AURA_ENGINE, encode(auraLog, { type: 'AuthoritiesChange', value: [...authorities] })],
});

const isAura = (item: DigestItem): item is DigestItem & { value: [Uint8Array, Uint8Array] } =>
  (item.type === 'PreRuntime' || item.type === 'Consensus' || item.type === 'Seal') &&
  equalBytes(item.value[0], AURA_ENGINE);

/** The slot that a header claims. Undefined when it has none, more than one, or one that cannot be read. */
export function slotOf(header: Pick<Header, 'digest'>): Slot | undefined {
  const found = header.digest.logs.filter((item) => item.type === 'PreRuntime' && isAura(item));
  const [item] = found;
  if (found.length !== 1 || item?.type !== 'PreRuntime') return undefined;
  try {
    const slot = decode(u64, item.value[1]);
    return slot <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(slot) : undefined;
  } catch (error) {
    if (error instanceof ScaleError) return undefined;
    throw error;
  }
}

/** Authorities that a block announces; they author from the next block on. Throws {@link ScaleError} when unreadable. */
export function authoritiesChangeIn(header: Pick<Header, 'digest'>): readonly Uint8Array[] | undefined {
  let next: readonly Uint8Array[] | undefined;
  for (const item of header.digest.logs) {
    if (item.type !== 'Consensus' || !isAura(item)) continue;
    const log = decode(auraLog, item.value[1]);
    if (log.type === 'AuthoritiesChange') next = log.value;
  }
  return next;
}

/** A header and the signature that stood on it; undefined unless the last digest item is an Aura seal of the right size. */
export function unseal(header: Header): { readonly unsealed: Header; readonly signature: Uint8Array } | undefined {
  const { logs } = header.digest;
  const last = logs[logs.length - 1];
  if (last?.type !== 'Seal' || !isAura(last) || last.value[1].length !== SIGNATURE_BYTES) return undefined;
  const digest: Digest = { logs: logs.slice(0, -1) };
  return { unsealed: { ...header, digest }, signature: last.value[1] };
}

export const withSeal = (unsealed: Header, signature: Uint8Array): Header => ({
  ...unsealed,
  digest: { logs: [...unsealed.digest.logs, sealDigest(signature)] },
});
