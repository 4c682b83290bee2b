/**
 * A session's money as its key holder sees it: what was spent, what is promised, and the vouchers for more. With a payer
 * behind it, the session is opened, topped up and replaced as needed.
 *
 * A promise is open until it is known what it came to. Where that cannot be found out for now, because its worker is away and
 * may or may not have signed a receipt, it is left open: nobody else is promised its money, and whoever asks the same again is
 * handed the same voucher. That is what keeps an answer from being paid twice, and it rests on the chain: a voucher pays the
 * worker that it names and nobody else, each nonce once and in ascending order, and only while that worker serves the adapter.
 * So a voucher's money is free again when its worker says that it has signed nothing, or serves no longer; `cumulative` of
 * every later voucher counts all open ones, whomever they name, so that what all workers may settle stays within the deposit.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { KeyringPair } from '@polkadot/keyring/types';
import type { Hashing } from '../../runtime/host.ts';
import type * as inference from '../../runtime/pallets/ledger/inference.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { type SignedVoucher, signedVoucher, type Voucher } from '../../runtime/primitives/attribution/receipts.ts';
import type { RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import { equalBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import type { Balance } from '../../runtime/primitives/types.ts';
import { type Ledger, LedgerError } from '../client/connection.ts';
import { openSession, sessionOf, topUp } from '../client/sessions.ts';
import { signVoucher, VoucherNonces } from '../client/vouchers.ts';
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

/** A promise whose answer nobody has heard. `question`: what was asked, as {@link Purse.promise} was told. */
interface Open {
  readonly question: string;
  readonly voucher: SignedVoucher;
  readonly seed: bigint;
  readonly most: Balance;
  /** Unix time in milliseconds. */
  readonly at: number;
}

/** One session: fees of all answers so far, in this and earlier runs, and what is promised beyond. */
interface Tab {
  readonly session: SessionId;
  spent: Balance;
  /** Requests under way. */
  readonly underWay: Set<Open>;
  /** Requests whose outcome is unknown, oldest first; they may be asked again. */
  readonly unheard: Set<Open>;
}

/** What a promise is for: whose answer, by which adapter, and what is asked. */
export interface PromiseTerms extends Pick<Voucher, 'worker' | 'adapter' | 'price'> {
  readonly terms: RequestTerms;
  /** The question by a name of the caller's, the same whenever it is asked. */
  readonly question: string;
}

/** A signed promise; one of the two ends it. */
export interface Promised {
  readonly voucher: SignedVoucher;
  /** Of the terms that the voucher was signed for. */
  readonly seed: bigint;
  readonly most: Balance;
  /** It came to that much: nothing, where it is certain that no receipt was signed. */
  spend(fee: Balance): Promise<void>;
  /** It is not known what it came to: all of it may be owed, and who asks the question again gets it. */
  leave(): Promise<void>;
}

/** Questions that can be asked again: how many, and for how long. Workers keep their answers for longer. */
const MAX_UNHEARD = 256;
const UNHEARD_MS = 600_000;

const refused = (message: string): ApiError => new ApiError(402, 'insufficient_quota', 'insufficient_quota', message);
const promisedBy = ({ underWay, unheard }: Tab): Balance =>
  [...underWay, ...unheard].reduce((sum, { most }) => sum + most, 0n);
const room = ({ deposit, settled }: inference.Session, tab: Tab): Balance =>
  deposit + settled - tab.spent - promisedBy(tab);
const emptyTab = (session: SessionId, spent: Balance): Tab => ({
  session,
  spent,
  underWay: new Set(),
  unheard: new Set(),
});

export class Purse {
  readonly #options: PurseOptions;
  readonly #nonces = new VoucherNonces();
  #tab: Tab;
  #funding: Promise<void> | undefined;
  /** One write after the other, in the order of the states. */
  #writing: Promise<void> = Promise.resolve();

  private constructor(options: PurseOptions, tab: Tab) {
    this.#options = options;
    this.#tab = tab;
  }

  /** Throws a 402 when there is no session and nobody to open one. */
  static async open(options: PurseOptions): Promise<Purse> {
    const { ledger, file, funding, key } = options;
    const kept = file === undefined ? undefined : await readState(file);
    const session = options.session ?? kept?.session;
    const state = session === undefined ? undefined : await sessionOf(ledger(), session);
    if (session !== undefined && state !== undefined && equalBytes(state.key, key.publicKey)) {
      const tab = kept?.session === session ? kept : emptyTab(session, 0n);
      if (tab.spent < state.settled) tab.spent = state.settled;
      return new Purse(options, tab);
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

  /** The promise of a question that was asked before and whose answer nobody has heard. */
  again(question: string): Promised | undefined {
    const tab = this.#tab;
    this.#tidy(tab);
    for (const open of tab.unheard) {
      if (open.question !== question) continue;
      tab.unheard.delete(open);
      return this.#enter(tab, open);
    }
    return undefined;
  }

  /** Settles when all that is known is in the file. */
  async written(): Promise<void> {
    await this.#writing;
  }

  #sign(tab: Tab, { question, ...promise }: PromiseTerms, most: Balance): Promised {
    const { ledger, key, hashing } = this.#options;
    const cumulative = tab.spent + promisedBy(tab) + most;
    const voucher = signVoucher(hashing, key, {
      ...{ chain: ledger().genesisHash, session: tab.session, nonce: this.#nonces.next(), cumulative },
      ...promise,
    });
    return this.#enter(tab, { question, voucher, seed: promise.terms.seed, most, at: Date.now() });
  }

  #enter(tab: Tab, open: Open): Promised {
    tab.underWay.add(open);
    return {
      ...{ voucher: open.voucher, seed: open.seed, most: open.most },
      spend: async (fee) => {
        if (!tab.underWay.delete(open)) return;
        tab.spent += fee;
        await this.#remember(tab);
      },
      leave: async () => {
        if (!tab.underWay.delete(open)) return;
        tab.unheard.add(open);
        this.#tidy(tab);
        await this.#remember(tab);
      },
    };
  }

  /** What nobody asks for any more counts as spent; the chain has the last word when the session is closed. */
  #tidy(tab: Tab): void {
    for (const open of tab.unheard) {
      if (tab.unheard.size <= MAX_UNHEARD && Date.now() - open.at <= UNHEARD_MS) continue;
      tab.unheard.delete(open);
      tab.spent += open.most;
    }
  }

  /** Before a promise leaves, and after: who dies between the two has promised all of it, and may ask again. */
  #remember(tab: Tab): Promise<void> {
    const { file } = this.#options;
    if (file === undefined || tab.session !== this.#tab.session) return Promise.resolve();
    const state = stateText(tab);
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
  return emptyTab(await openSession(ledger, payer, key.publicKey, deposit), 0n);
}

// ---- the file ------------------------------------------------------------------------------------------------

interface KeptOpen {
  readonly question: string;
  readonly voucher: string;
  readonly seed: string;
  readonly most: string;
  readonly at: number;
}

function stateText({ session, spent, underWay, unheard }: Tab): string {
  const open: KeptOpen[] = [...unheard, ...underWay].map(({ question, voucher, seed, most, at }) => ({
    ...{ question, voucher: toHex(encode(signedVoucher, voucher)), seed: String(seed), most: String(most), at },
  }));
  return JSON.stringify({ session: String(session), spent: String(spent), open });
}

async function readState(file: string): Promise<Tab | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (problem) {
    if ((problem as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw problem;
  }
  const kept = JSON.parse(text) as { session: string; spent: string; open?: readonly KeptOpen[] };
  const tab = emptyTab(BigInt(kept.session) as SessionId, BigInt(kept.spent));
  for (const { question, voucher, seed, most, at } of kept.open ?? []) {
    const signed = decode(signedVoucher, fromHex(voucher));
    tab.unheard.add({ question, voucher: signed, seed: BigInt(seed), most: BigInt(most), at });
  }
  return tab;
}
