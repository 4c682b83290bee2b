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
import type * as inference from '../../runtime/pallets/ledger/inference.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { type SignedVoucher, signedVoucher, type Voucher } from '../../runtime/primitives/attribution/receipts.ts';
import type { RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import { equalBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import type { Balance } from '../../runtime/primitives/types.ts';
import { LedgerError } from './errors.ts';
import { PaidFailure } from './job-failure.ts';
import type { Ledger } from './ledger.ts';
import { openSession, sessionOf, topUp } from './sessions.ts';
import type { Signer } from './signer.ts';
import { exceededLimit, type SpendingLimits } from './spending-limits.ts';
import { signVoucher, VoucherNonces } from './vouchers.ts';

/** Who pays for a session, and how much is put down at a time. */
export interface Funding {
  readonly payer: Signer;
  readonly deposit: Balance;
}

export interface PurseOptions {
  readonly ledger: Ledger;
  /** Signs the vouchers (sr25519). */
  readonly key: Signer;
  /** Undefined: the one that the store remembers, or a new one of the payer's. */
  readonly session?: SessionId | undefined;
  /** Opens the session, tops it up and replaces it; undefined: questions end with the deposit. */
  readonly funding?: Funding | undefined;
  /** Where spending is remembered between runs; without it only what is settled is known at the start. */
  readonly store?: PurseStore | undefined;
  readonly limits?: SpendingLimits | undefined;
}

/** Keeps one text between runs: a file, a browser's storage. */
export interface PurseStore {
  read(): Promise<string | undefined>;
  /** Resolves when the text survives the end of the process. */
  write(text: string): Promise<void>;
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
  /** What answers of one day (since 1970, UTC) came to. */
  day: { readonly number: number; spent: Balance };
  /** Promises that are not signed yet. */
  readonly signing: Set<{ readonly most: Balance }>;
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

const DAY_MS = 86_400_000;
const today = (): number => Math.floor(Date.now() / DAY_MS);
const promisedBy = ({ signing, underWay, unheard }: Tab): Balance =>
  [...signing, ...underWay, ...unheard].reduce((sum, { most }) => sum + most, 0n);
function dayOf(tab: Tab): Tab['day'] {
  if (tab.day.number !== today()) tab.day = { number: today(), spent: 0n };
  return tab.day;
}
const room = ({ deposit, settled }: inference.Session, tab: Tab): Balance =>
  deposit + settled - tab.spent - promisedBy(tab);
const emptyTab = (session: SessionId, spent: Balance): Tab => ({
  session,
  spent,
  day: { number: today(), spent: 0n },
  signing: new Set(),
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

  /** Rejects with a {@link PaidFailure} when there is no session and nobody to open one. */
  static async open(options: PurseOptions): Promise<Purse> {
    const { ledger, store, funding, key } = options;
    const text = await store?.read();
    const kept = text === undefined ? undefined : tabFrom(text);
    const session = options.session ?? kept?.session;
    const state = session === undefined ? undefined : await sessionOf(ledger, session);
    if (session !== undefined && state !== undefined && equalBytes(state.key, key.publicKey)) {
      const tab = kept?.session === session ? kept : emptyTab(session, 0n);
      if (tab.spent < state.settled) tab.spent = state.settled;
      return new Purse(options, tab);
    }
    if (options.session !== undefined) {
      throw state === undefined
        ? new PaidFailure('NO_SESSION', `there is no session ${options.session}`)
        : new PaidFailure('OTHER_KEY', `session ${options.session} has another key`);
    }
    if (funding === undefined) throw new PaidFailure('NO_SESSION', 'no session is given');
    const tab = await begin(ledger, funding, key);
    // What was spent today is spent, whichever session it came from.
    if (kept !== undefined) tab.day = kept.day;
    const purse = new Purse(options, tab);
    await purse.#remember(purse.#tab);
    return purse;
  }

  get session(): SessionId {
    return this.#tab.session;
  }

  get spent(): Balance {
    return this.#tab.spent;
  }

  /** What answers came to today, and what is promised beyond. */
  get spentToday(): Balance {
    return dayOf(this.#tab).spent + promisedBy(this.#tab);
  }

  /**
   * Promises up to `most`. Rejects with a {@link PaidFailure}: when the user's limits, or those of this question, forbid
   * it, or the deposit does not cover it and nobody adds to it.
   */
  async promise(terms: PromiseTerms, most: Balance, limits?: SpendingLimits): Promise<Promised> {
    const { ledger, funding } = this.#options;
    for (let tries = 0; ; tries++) {
      const tab = this.#tab;
      this.#check(terms, most, limits);
      const state = await sessionOf(ledger, tab.session);
      const open = state !== undefined && state.closing === undefined;
      if (open && room(state, tab) >= most) {
        if (funding !== undefined && room(state, tab) - most < funding.deposit / 4n) {
          // Early enough that nobody waits for the block.
          this.#fund(funding, 0n).catch(() => {});
        }
        // Others may have been promised something while the chain was asked.
        this.#check(terms, most, limits);
        const promised = await this.#sign(tab, terms, most);
        await this.#remember(tab);
        return promised;
      }
      if (funding === undefined || tries > 2) {
        throw open
          ? new PaidFailure('DEPOSIT_SPENT', 'the session’s deposit is spent: top it up')
          : new PaidFailure('SESSION_CLOSED', 'the session is closed: open another one');
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

  /** Settles when all that is known is in the store. */
  async written(): Promise<void> {
    await this.#writing;
  }

  #check({ price }: PromiseTerms, most: Balance, limits?: SpendingLimits): void {
    for (const each of [this.#options.limits, limits]) {
      const exceeded = each && exceededLimit(each, { price, most, today: this.spentToday });
      if (exceeded !== undefined) throw exceeded;
    }
  }

  async #sign(tab: Tab, { question, ...promise }: PromiseTerms, most: Balance): Promise<Promised> {
    const { ledger, key } = this.#options;
    // Held from now on, since a signer may take its time and others are promised something meanwhile.
    const held = { most };
    tab.signing.add(held);
    try {
      const cumulative = tab.spent + promisedBy(tab);
      const voucher = await signVoucher(ledger.hashing, key, {
        ...{ chain: ledger.genesisHash, session: tab.session, nonce: this.#nonces.next(), cumulative },
        ...promise,
      });
      return this.#enter(tab, { question, voucher, seed: promise.terms.seed, most, at: Date.now() });
    } finally {
      tab.signing.delete(held);
    }
  }

  #enter(tab: Tab, open: Open): Promised {
    tab.underWay.add(open);
    return {
      ...{ voucher: open.voucher, seed: open.seed, most: open.most },
      spend: async (fee) => {
        if (!tab.underWay.delete(open)) return;
        tab.spent += fee;
        dayOf(tab).spent += fee;
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
      dayOf(tab).spent += open.most;
    }
  }

  /** Before a promise leaves, and after: who dies between the two has promised all of it, and may ask again. */
  #remember(tab: Tab): Promise<void> {
    const { store } = this.#options;
    if (store === undefined || tab.session !== this.#tab.session) return Promise.resolve();
    const text = tabText(tab);
    this.#writing = this.#writing.then(() => store.write(text));
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
      const state = await sessionOf(ledger, session);
      if (state !== undefined && state.closing === undefined) await topUp(ledger, payer, session, amount);
      else {
        const { day } = this.#tab;
        this.#tab = { ...(await begin(ledger, { payer, deposit: amount }, key)), day };
        await this.#remember(this.#tab);
      }
    } catch (problem) {
      if (!(problem instanceof LedgerError)) throw problem;
      throw new PaidFailure('NO_FUNDS', `the payer cannot add to the deposit: ${problem.message}`, problem.code);
    }
  }
}

async function begin(ledger: Ledger, { payer, deposit }: Funding, key: Signer): Promise<Tab> {
  return emptyTab(await openSession(ledger, payer, key.publicKey, deposit), 0n);
}

// ---- the store -----------------------------------------------------------------------------------------------

interface KeptOpen {
  readonly question: string;
  readonly voucher: string;
  readonly seed: string;
  readonly most: string;
  readonly at: number;
}

interface KeptTab {
  readonly session: string;
  readonly spent: string;
  readonly day?: { readonly number: number; readonly spent: string };
  readonly open?: readonly KeptOpen[];
}

function tabText(tab: Tab): string {
  const { session, spent, underWay, unheard } = tab;
  const day = dayOf(tab);
  const open: KeptOpen[] = [...unheard, ...underWay].map(({ question, voucher, seed, most, at }) => ({
    ...{ question, voucher: toHex(encode(signedVoucher, voucher)), seed: String(seed), most: String(most), at },
  }));
  const kept: KeptTab = {
    session: String(session),
    spent: String(spent),
    day: { number: day.number, spent: String(day.spent) },
    open,
  };
  return JSON.stringify(kept);
}

function tabFrom(text: string): Tab {
  const kept = JSON.parse(text) as KeptTab;
  const tab = emptyTab(BigInt(kept.session) as SessionId, BigInt(kept.spent));
  if (kept.day !== undefined) tab.day = { number: kept.day.number, spent: BigInt(kept.day.spent) };
  for (const { question, voucher, seed, most, at } of kept.open ?? []) {
    const signed = decode(signedVoucher, fromHex(voucher));
    tab.unheard.add({ question, voucher: signed, seed: BigInt(seed), most: BigInt(most), at });
  }
  return tab;
}
