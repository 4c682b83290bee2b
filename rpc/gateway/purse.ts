/** A session's money as its key holder sees it: what was spent, what is promised, and the vouchers for more. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { KeyringPair } from '@polkadot/keyring/types';
import type { Hashing } from '../../runtime/host.ts';
import * as inference from '../../runtime/pallets/inference.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { type Price, type SignedVoucher, voucher } from '../../runtime/primitives/attribution/receipts.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import type { Ledger } from '../client/ledger.ts';
import { ApiError } from './openai.ts';

export class Purse {
  readonly session: SessionId;
  readonly #ledger: () => Ledger;
  readonly #key: KeyringPair;
  readonly #hashing: Hashing;
  readonly #file: string | undefined;
  /** Fees of all answers so far, in this and earlier runs. */
  #spent: bigint;
  #promised = 0n;
  #nonce: bigint;

  private constructor(
    session: SessionId,
    ledger: () => Ledger,
    key: KeyringPair,
    hashing: Hashing,
    file: string | undefined,
    spent: bigint,
    nonce: bigint,
  ) {
    this.session = session;
    this.#ledger = ledger;
    this.#key = key;
    this.#hashing = hashing;
    this.#file = file;
    this.#spent = spent;
    this.#nonce = nonce;
  }

  /** `file`: where spending is remembered between runs; without it only what is settled is known at the start. */
  static async open(
    ledger: () => Ledger,
    session: SessionId,
    key: KeyringPair,
    hashing: Hashing,
    file?: string,
  ): Promise<Purse> {
    const state = await ledger().read('inference', 'sessions', inference.session, session);
    if (state === undefined)
      throw new ApiError(402, 'insufficient_quota', 'no_session', `there is no session ${session}`);
    const kept = file === undefined ? undefined : await readState(file);
    const spent = kept?.session === session.toString() ? BigInt(kept.spent) : 0n;
    // Nonces must rise from run to run: the clock sees to that.
    const nonce = BigInt(Date.now()) * 1_000_000n;
    return new Purse(session, ledger, key, hashing, file, spent > state.settled ? spent : state.settled, nonce);
  }

  get spent(): bigint {
    return this.#spent;
  }

  /** Promises up to `most`. Throws a 402 when the deposit does not cover it. */
  async promise(worker: AccountId, adapter: AdapterId, price: Price, most: bigint): Promise<SignedVoucher> {
    const state = await this.#ledger().read('inference', 'sessions', inference.session, this.session);
    const cumulative = this.#spent + this.#promised + most;
    if (state === undefined || state.closing !== undefined || cumulative > state.deposit + state.settled) {
      throw new ApiError(402, 'insufficient_quota', 'insufficient_quota', 'the session’s deposit is spent: top it up');
    }
    this.#promised += most;
    const payload = {
      chain: this.#ledger().genesisHash,
      session: this.session,
      worker,
      nonce: ++this.#nonce,
      cumulative,
      adapter,
      price,
    };
    const value = this.#key.sign(hashOf(this.#hashing, voucher, payload));
    return { payload, signature: { type: 'Sr25519', value } };
  }

  /** What a promise of `most` came to. */
  async spend(most: bigint, fee: bigint): Promise<void> {
    this.#promised -= most;
    if (fee === 0n) return;
    this.#spent += fee;
    if (this.#file === undefined) return;
    const state = JSON.stringify({ session: this.session.toString(), spent: this.#spent.toString() });
    await writeFile(`${this.#file}.new`, state, { mode: 0o600 });
    await rename(`${this.#file}.new`, this.#file);
  }
}

async function readState(file: string): Promise<{ session: string; spent: string } | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as { session: string; spent: string };
  } catch (problem) {
    if ((problem as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw problem;
  }
}
