/**
 * A session's money as its key holder sees it: what was spent, what is promised, and the vouchers for more. With a payer
 * behind it, the session is opened, topped up and replaced as needed.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { KeyringPair } from '@polkadot/keyring/types';
import type { Hashing } from '../../runtime/host.ts';
import type * as inference from '../../runtime/pallets/inference.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { type SignedVoucher, type Voucher, voucher } from '../../runtime/primitives/attribution/receipts.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import type { Balance } from '../../runtime/primitives/types.ts';
import { type Ledger, LedgerError } from '../client/ledger.ts';
import { openSession, sessionOf, topUp } from '../client/sessions.ts';
import { ApiError } from './openai.ts';

/** Who pays for a session, and how much is put down at a time. */
export interface Funding {
  readonly payer: KeyringPair;
  readonly deposit: Balance;
}

export interface PurseOptions {
  readonly ledger: () => Ledger;
  /** Signs the vouchers. */
  readonly key: KeyringPair;
  /** Undefined: the one remembered in the file, or a new one of the payer's. */
  readonly session: SessionId | undefined;
  readonly funding: Funding | undefined;
  /** Where spending is remembered between runs; without it only what is settled is known at the start. */
  readonly file: string | undefined;
  readonly hashing: Hashing;
}

/** One session: fees of all answers so far, in this and earlier runs, and what requests under way may cost. */
interface Tab {
  readonly session: SessionId;
  spent: Balance;
  promised: Balance;
}

/** What a promise is for: whose answer, by which adapter, and what is asked (the hash of its terms). */
export type PromiseTerms = Pick<Voucher, 'worker' | 'adapter' | 'price' | 'request'>;

/** A signed promise; `spend` tells what it came to: `undefined` where that is not known, so that all of it may be owed. */
export interface Promised {
  readonly voucher: SignedVoucher;
  spend(fee: Balance | undefined): Promise<void>;
}

const refused = (message: string): ApiError => new ApiError(402, 'insufficient_quota', 'insufficient_quota', message);
const room = ({ deposit, settled }: inference.Session, { spent, promised }: Tab): Balance =>
  deposit + settled - spent - promised;

export class Purse {
  readonly #options: PurseOptions;
  #tab: Tab;
  #nonce: bigint;
  #funding: Promise<void> | undefined;
  /** One write after the other, in the order of the states. */
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: PurseOptions, tab: Tab) {
    this.#options = options;
    this.#tab = tab;
    // Nonces must rise from run to run: the clock sees to that.
    this.#nonce = BigInt(Date.now()) * 1_000_000n;
  }

  /** Throws a 402 when there is no session and nobody to open one. */
  static async open(options: PurseOptions): Promise<Purse> {
    const { ledger, file, funding, key } = options;
    const kept = file === undefined ? undefined : await readState(file);
    const session = options.session ?? (kept === undefined ? undefined : (BigInt(kept.session) as SessionId));
    const state = session === undefined ? undefined : await sessionOf(ledger(), session);
    if (session !== undefined && state !== undefined && equalBytes(state.key, key.publicKey)) {
      const spent = kept?.session === session.toString() ? BigInt(kept.spent) : 0n;
      return new Purse(options, { session, spent: spent > state.settled ? spent : state.settled, promised: 0n });
    }
    if (options.session !== undefined) {
      throw state === undefined
        ? new ApiError(402, 'insufficient_quota', 'no_session', `there is no session ${options.session}`)
        : new ApiError(402, 'insufficient_quota', 'other_key', `session ${options.session} has another key`);
    }
    if (funding === undefined) throw new ApiError(402, 'insufficient_quota', 'no_session', 'no session is given');
    const purse = new Purse(options, await begin(ledger(), funding, key));
    await purse.#remember(purse.#tab);
    return purse;
  }

  get session(): SessionId {
    return this.#tab.session;
  }

  get spent(): Balance {
    return this.#tab.spent;
  }

  /** Promises up to `most`. Throws a 402 when the deposit does not cover it and nobody adds to it. */
  async promise(terms: PromiseTerms, most: Balance): Promise<Promised> {
    const { ledger, funding } = this.#options;
    for (let tries = 0; ; tries++) {
      const tab = this.#tab;
      const state = await sessionOf(ledger(), tab.session);
      const open = state !== undefined && state.closing === undefined;
      if (open && room(state, tab) >= most) {
        if (funding !== undefined && room(state, tab) - most < funding.deposit / 4n) {
          // Early enough that nobody waits for the block.
          this.#fund(funding, 0n).catch(() => {});
        }
        const promised = this.#sign(tab, terms, most);
        await this.#remember(tab);
        return promised;
      }
      if (funding === undefined || tries > 2) {
        throw refused(open ? 'the session’s deposit is spent: top it up' : 'the session is closed: open another one');
      }
      await this.#fund(funding, most);
    }
  }

  #sign(tab: Tab, { worker, adapter, price, request }: PromiseTerms, most: Balance): Promised {
    const { ledger, key, hashing } = this.#options;
    tab.promised += most;
    const payload = {
      chain: ledger().genesisHash,
      session: tab.session,
      worker,
      nonce: ++this.#nonce,
      cumulative: tab.spent + tab.promised,
      adapter,
      price,
      request,
    };
    const value = key.sign(hashOf(hashing, voucher, payload));
    return {
      voucher: { payload, signature: { type: 'Sr25519', value } },
      spend: async (fee = most) => {
        tab.promised -= most;
        tab.spent += fee;
        await this.#remember(tab);
      },
    };
  }

  /** Before a promise leaves, and after: who dies between the two has promised all of it. */
  #remember({ session, spent, promised }: Tab): Promise<void> {
    const { file } = this.#options;
    if (file === undefined || session !== this.#tab.session) return Promise.resolve();
    const state = JSON.stringify({ session: session.toString(), spent: (spent + promised).toString() });
    this.#writing = this.#writing.then(async () => {
      await writeFile(`${file}.new`, state, { mode: 0o600 });
      await rename(`${file}.new`, file);
    });
    return this.#writing;
  }

  /** Adds a deposit, or opens another session where this one is closed; one at a time, whoever asks. */
  #fund(funding: Funding, least: Balance): Promise<void> {
    this.#funding ??= this.#addDeposit(funding, least).finally(() => {
      this.#funding = undefined;
    });
    return this.#funding;
  }

  async #addDeposit({ payer, deposit }: Funding, least: Balance): Promise<void> {
    const { ledger, key } = this.#options;
    const amount = least > deposit ? least : deposit;
    try {
      const { session } = this.#tab;
      const state = await sessionOf(ledger(), session);
      if (state !== undefined && state.closing === undefined) await topUp(ledger(), payer, session, amount);
      else {
        this.#tab = await begin(ledger(), { payer, deposit: amount }, key);
        await this.#remember(this.#tab);
      }
    } catch (problem) {
      if (!(problem instanceof LedgerError)) throw problem;
      throw refused(`the payer cannot add to the deposit: ${problem.message} (${problem.code})`);
    }
  }
}

async function begin(ledger: Ledger, { payer, deposit }: Funding, key: KeyringPair): Promise<Tab> {
  return { session: await openSession(ledger, payer, key.publicKey, deposit), spent: 0n, promised: 0n };
}

async function readState(file: string): Promise<{ session: string; spent: string } | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as { session: string; spent: string };
  } catch (problem) {
    if ((problem as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw problem;
  }
}
