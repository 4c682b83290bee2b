/**
 * Who has how much of a blob store. Each kind of claim has a part of it, so that neither records nor adapters nor receipts
 * crowd the others out. Within a kind an account has at most half of what others have left: whoever comes later and asks for
 * less still finds room, however much somebody was ready to put on hold before.
 */
import type { Purpose } from '../../runtime/pallets/ledger/blobs.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { BlobClaim } from './committed.ts';

export type Kind = 'records' | 'models' | 'receipts';

/** Whom a blob is charged to. */
export interface Claimant {
  readonly kind: Kind;
  readonly account: string;
}

/** Of the store, in percent. */
const PARTS: Readonly<Record<Kind, number>> = { records: 40, models: 40, receipts: 20 };

const KINDS: Readonly<Record<Purpose['type'], Kind>> = {
  Records: 'records',
  BaseModel: 'models',
  Training: 'models',
  Segments: 'models',
  Receipts: 'receipts',
  Disclosure: 'receipts',
};

/** Those who claim a blob of that size. */
export const claimantsOf = (claims: readonly BlobClaim[], bytes: number): readonly Claimant[] =>
  claims
    .filter((each) => each.bytes === bytes)
    .map(({ claim: { purpose, depositor } }) => ({ kind: KINDS[purpose.type], account: toHex(depositor) }));

const nameOf = ({ kind, account }: Claimant): string => `${kind} ${account}`;

export class Room {
  readonly #maxBytes: number;
  readonly #kinds: Record<Kind, number> = { records: 0, models: 0, receipts: 0 };
  readonly #accounts = new Map<string, number>();

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Bytes of each kind. */
  get used(): Readonly<Record<Kind, number>> {
    return this.#kinds;
  }

  /** The most that one more blob of a claimant may have. */
  leftFor(claimant: Claimant): number {
    const { kind } = claimant;
    const own = this.#accounts.get(nameOf(claimant)) ?? 0;
    const part = Math.floor((this.#maxBytes * PARTS[kind]) / 100);
    const others = this.#kinds[kind] - own;
    return Math.max(0, Math.floor((part - others) / 2) - own);
  }

  /** More bytes, or fewer. */
  charge(claimant: Claimant, bytes: number): void {
    const name = nameOf(claimant);
    this.#kinds[claimant.kind] += bytes;
    const left = (this.#accounts.get(name) ?? 0) + bytes;
    if (left > 0) this.#accounts.set(name, left);
    else this.#accounts.delete(name);
  }
}
