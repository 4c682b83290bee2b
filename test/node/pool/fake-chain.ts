/** A chain that knows nothing but nonces: blocks on any fork, validity by nonce, tags as `CheckNonce` gives them. */
import { blake2AsU8a } from '@polkadot/util-crypto';
import { createHashing } from '../../../node/crypto/hashing.ts';
import type { PoolPorts } from '../../../node/pool/pool.ts';
import type { BlockRef, ChainEvent, TreeRoute } from '../../../node/ports/chain.ts';
import { concatBytes, toHex } from '../../../runtime/primitives/bytes.ts';
import type { Header } from '../../../runtime/primitives/header.ts';
import { asHash, type Hash } from '../../../runtime/primitives/types.ts';
import type { InvalidTransaction, TransactionValidity } from '../../../runtime/primitives/validity.ts';

export interface Spec {
  readonly sender: number;
  readonly nonce: number;
  readonly priority?: number;
  /** The last block that may contain it; immortal without. */
  readonly until?: number;
  /** Makes two transactions of the same kind different. */
  readonly salt?: number;
  readonly size?: number;
}

const u32 = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);
const HEAD = 2 + 32;

/** Looks like a signed extrinsic of version 4 as far as the pool reads one. */
export function extrinsicOf({ sender, nonce, priority = 10, until = 0, salt = 0, size = 0 }: Spec): Uint8Array {
  const account = concatBytes(u32(sender), new Uint8Array(28));
  const fields = [nonce, priority, until, salt].map(u32);
  return concatBytes(Uint8Array.of(0x84, 0), account, ...fields, new Uint8Array(size));
}

export function specOf(extrinsic: Uint8Array): Required<Omit<Spec, 'size'>> {
  const view = new DataView(extrinsic.buffer, extrinsic.byteOffset);
  const field = (index: number) => view.getUint32(HEAD + 4 * index, true);
  return {
    sender: view.getUint32(2, true),
    nonce: field(0),
    priority: field(1),
    until: field(2),
    salt: field(3),
  };
}

export const INHERENT = Uint8Array.of(0x04, 1, 2, 3);
const tagOf = (sender: number, nonce: number) => concatBytes(u32(sender), u32(nonce));

interface FakeBlock extends BlockRef {
  readonly parent: Hash;
  readonly body: readonly Uint8Array[];
  readonly nonces: ReadonlyMap<number, number>;
}

const invalid = (type: Exclude<InvalidTransaction['type'], 'Custom'>): TransactionValidity => ({
  ok: false,
  error: { type: 'Invalid', value: { type } },
});

export class FakeChain {
  readonly #blocks = new Map<string, FakeBlock>();
  readonly #listeners = new Set<(event: ChainEvent) => void>();
  readonly genesis: BlockRef;
  best: BlockRef;
  finalized: BlockRef;
  time = 0;
  validations = 0;
  preverified: number[] = [];
  /** What the pool has logged as errors. */
  readonly errors: string[] = [];
  preverify: (extrinsics: readonly Uint8Array[]) => Promise<void> = async () => {};
  /** Overrules what the nonce says. */
  judge: (extrinsic: Uint8Array) => TransactionValidity | undefined = () => undefined;
  propagate = true;
  authority = true;
  #serial = 0;

  constructor() {
    this.genesis = { hash: asHash(blake2AsU8a('genesis')), number: 0 };
    this.best = this.genesis;
    this.finalized = this.genesis;
    const parent = asHash(new Uint8Array(32));
    this.#blocks.set(toHex(this.genesis.hash), { ...this.genesis, parent, body: [], nonces: new Map() });
  }

  block(hash: Hash): FakeBlock {
    const block = this.#blocks.get(toHex(hash));
    if (block === undefined) throw new Error('unknown block');
    return block;
  }

  nonce(sender: number, at: Hash = this.best.hash): number {
    return this.block(at).nonces.get(sender) ?? 0;
  }

  validate(at: Hash, extrinsic: Uint8Array): TransactionValidity {
    this.validations++;
    const judged = this.judge(extrinsic);
    if (judged !== undefined) return judged;
    const { sender, nonce, priority, until } = specOf(extrinsic);
    const { nonces, number } = this.block(at);
    const expected = nonces.get(sender) ?? 0;
    if (nonce < expected) return invalid('Stale');
    if (until > 0 && until <= number) return invalid('AncientBirthBlock');
    return {
      ok: true,
      value: {
        priority: BigInt(priority),
        requires: nonce > expected ? [tagOf(sender, nonce - 1)] : [],
        provides: [tagOf(sender, nonce)],
        longevity: until > 0 ? BigInt(until - number) : 2n ** 64n - 1n,
        propagate: this.propagate,
      },
    };
  }

  /** Puts a block on `parent`; transactions that do not fit there are left out. Does not make it the best one. */
  build(parent: BlockRef, extrinsics: readonly Uint8Array[]): BlockRef {
    const nonces = new Map(this.block(parent.hash).nonces);
    const fitting = extrinsics.filter((extrinsic) => {
      const { sender, nonce } = specOf(extrinsic);
      const fits = nonce === (nonces.get(sender) ?? 0);
      if (fits) nonces.set(sender, nonce + 1);
      return fits;
    });
    const hash = asHash(blake2AsU8a(concatBytes(parent.hash, u32(++this.#serial))));
    const block = { hash, number: parent.number + 1, parent: parent.hash, body: [INHERENT, ...fitting], nonces };
    this.#blocks.set(toHex(hash), block);
    return { hash, number: block.number };
  }

  /** Makes a block the best one and tells everybody. */
  adopt(block: BlockRef): void {
    const route = this.#route(this.best, block);
    this.best = block;
    const header = { parentHash: this.block(block.hash).parent, number: block.number } as Header;
    this.#emit({ type: 'imported', block, header, origin: 'own', isNewBest: true, route });
  }

  extend(extrinsics: readonly Uint8Array[] = []): BlockRef {
    const block = this.build(this.best, extrinsics);
    this.adopt(block);
    return block;
  }

  finalize(block: BlockRef): void {
    const finalized: BlockRef[] = [];
    for (let at: BlockRef = block; at.number > this.finalized.number; at = this.#parentOf(at)) finalized.unshift(at);
    this.finalized = block;
    this.#emit({ type: 'finalized', finalized, pruned: [] });
  }

  ancestor(block: BlockRef, depth: number): BlockRef {
    let at = block;
    for (let i = 0; i < depth && at.number > 0; i++) at = this.#parentOf(at);
    return at;
  }

  #parentOf(block: BlockRef): BlockRef {
    const { parent, number } = this.block(block.hash);
    return { hash: parent, number: number - 1 };
  }

  #route(from: BlockRef, to: BlockRef): TreeRoute {
    const retracted: BlockRef[] = [];
    const enacted: BlockRef[] = [];
    let a = from;
    let b = to;
    while (toHex(a.hash) !== toHex(b.hash)) {
      if (a.number >= b.number) {
        retracted.push(a);
        a = this.#parentOf(a);
      } else {
        enacted.unshift(b);
        b = this.#parentOf(b);
      }
    }
    return { retracted, enacted };
  }

  #emit(event: ChainEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  ports(): PoolPorts {
    return {
      blocks: {
        info: () => ({ genesisHash: this.genesis.hash, best: this.best, finalized: this.finalized }),
        header: (hash) => ({ parentHash: this.block(hash).parent }) as Header,
        body: (hash) => this.block(hash).body,
      },
      events: {
        subscribe: (listener) => {
          this.#listeners.add(listener);
          return () => this.#listeners.delete(listener);
        },
      },
      validate: (block, _source, extrinsic) => this.validate(block, extrinsic),
      preverify: (extrinsics) => {
        this.preverified.push(extrinsics.length);
        return this.preverify(extrinsics);
      },
      isAuthority: () => this.authority,
      hashing: createHashing(),
      clock: { now: () => this.time, monotonic: () => this.time, after: () => () => {} },
      log: (level, message, fields) => {
        if (level === 'error') this.errors.push(`${message}: ${JSON.stringify(fields)}`);
      },
    };
  }
}
