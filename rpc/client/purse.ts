/**
 * A session's money as its key holder sees it: what was spent, what is promised, and the vouchers for more. With a payer
 * behind it, the session is opened, topped up and replaced as needed.
 *
 * Workers answer for what is allocated to them on the chain, each for its own part: a worker that is asked for the first time,
 * or whose part is used up, is allocated some more of the deposit before; a worker that has not been asked for a while gives
 * its part back when the deposit is used up.
 *
 * A promise is open until it is known what it came to. Where that cannot be found out for now, because its worker is away and
 * may or may not have signed a receipt, it is left open: nobody else is promised its money, and whoever asks the same again is
 * handed the same voucher. That is what keeps an answer from being paid twice, and it rests on the chain: a voucher pays the
 * worker that it names and nobody else, each nonce once and in ascending order, and only while that worker serves the adapter.
 * So a voucher's money is free again when its worker says that it has signed nothing, or serves no longer; `cumulative` of
 * every later voucher for the worker counts all open ones for it, so that what it may settle stays within its part.
 */
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { type SignedVoucher, signedVoucher, type Voucher } from '../../runtime/primitives/attribution/receipts.ts';
import type { RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import { equalBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, type Balance, sameAccount } from '../../runtime/primitives/types.ts';
import { LedgerError } from './errors.ts';
import { PaidFailure } from './job-failure.ts';
import type { Ledger } from './ledger.ts';
import { allocate, allocationOf, openSession, release, sessionOf, topUp } from './sessions.ts';
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

/** What one worker was paid by its answers so far, in this and earlier runs. */
interface WorkerTab {
  readonly worker: AccountId;
  /** Counts from the first allocation on, as vouchers do; what came back counts as spent. */
  spent: Balance;
  /** Unix time in milliseconds. */
  askedAt: number;
}

/** One session. */
interface Tab {
  readonly session: SessionId;
  /** Fees of all answers. */
  spent: Balance;
  /** By account in hex. */
  readonly workers: Map<string, WorkerTab>;
  /** What answers of one day (since 1970, UTC) came to. */
  day: { readonly number: number; spent: Balance };
  /** Promises that are not signed yet. */
  readonly signing: Set<{ readonly worker: AccountId; readonly most: Balance }>;
  /** Requests under way. */
  readonly underWay: Set<Open>;
  /** Requests whose outcome is unknown, oldest first; they may be asked again. */
  readonly unheard: Set<Open>;
}

/** What a promise is for: whose answer, by which adapter, and what is asked. */
export interface PromiseTerms extends Pick<Voucher, 'worker' | 'adapter' | 'price' | 'markup'> {
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
/** What may still come to be owed to the worker. */
const promisedTo = ({ signing, underWay, unheard }: Tab, { worker }: WorkerTab): Balance =>
  [
    ...[...signing].map((each) => ({ to: each.worker, most: each.most })),
    ...[...underWay, ...unheard].map(({ voucher, most }) => ({ to: voucher.payload.worker, most })),
  ].reduce((sum, { to, most }) => (sameAccount(to, worker) ? sum + most : sum), 0n);
/** What of its part the worker is not promised yet. */
const room = (reserved: inference.Allocation, tab: Tab, own: WorkerTab): Balance =>
  reserved.releasing === undefined ? reserved.allocated - own.spent - promisedTo(tab, own) : 0n;
const unallocated = ({ deposit, allocated }: inference.Session): Balance => deposit - allocated;
function tabOf({ workers }: Tab, worker: AccountId): WorkerTab {
  const name = toHex(worker);
  const found = workers.get(name) ?? { worker, spent: 0n, askedAt: Date.now() };
  workers.set(name, found);
  return found;
}
/** It came to that much. */
function book(tab: Tab, { voucher }: Open, fee: Balance): void {
  tab.spent += fee;
  dayOf(tab).spent += fee;
  tabOf(tab, voucher.payload.worker).spent += fee;
}
/** The deposit is handed to workers in so many parts. */
const PARTS = 8n;
/** Workers that were not asked for so long give their part back where others need it. */
const IDLE_MS = 600_000;
const emptyTab = (session: SessionId, spent: Balance): Tab => ({
  session,
  spent,
  workers: new Map(),
  day: { number: today(), spent: 0n },
  signing: new Set(),
  underWay: new Set(),
  unheard: new Set(),
});

export class Purse {
  readonly #options: PurseOptions;
  readonly #nonces = new VoucherNonces();
  #tab: Tab;
  /** Transactions that divide or add to the deposit, one after the other. */
  #dividing: Promise<void> = Promise.resolve();
  /** Workers whose part is being added to, early enough that nobody waits. */
  readonly #adding = new Set<string>();
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
   * it, or the worker's part of the deposit does not cover it and neither the rest of the deposit nor the payer adds to it.
   */
  async promise(terms: PromiseTerms, most: Balance, limits?: SpendingLimits): Promise<Promised> {
    const { ledger } = this.#options;
    for (let tries = 0; ; tries++) {
      const tab = this.#tab;
      this.#check(terms, most, limits);
      const state = await sessionOf(ledger, tab.session);
      const reserved = await allocationOf(ledger, tab.session, terms.worker);
      if (state !== undefined && state.closing === undefined && reserved !== undefined) {
        const own = tabOf(tab, terms.worker);
        // What the chain has seen spent by others with this key, and what came back, counts too.
        if (own.spent < reserved.spent) own.spent = reserved.spent;
        const left = room(reserved, tab, own) - most;
        if (left >= 0n) {
          own.askedAt = Date.now();
          if (left < (reserved.allocated - reserved.spent) / 4n) this.#addEarly(terms.worker);
          // Others may have been promised something while the chain was asked.
          this.#check(terms, most, limits);
          const promised = await this.#sign(tab, own, terms, most);
          await this.#remember(tab);
          return promised;
        }
      }
      if (tries > 2) throw new PaidFailure('DEPOSIT_SPENT', 'the deposit does not suffice for this worker: top it up');
      await this.#divide(terms.worker, most);
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

  async #sign(tab: Tab, own: WorkerTab, { question, ...promise }: PromiseTerms, most: Balance): Promise<Promised> {
    const { ledger, key } = this.#options;
    // Held from now on, since a signer may take its time and others are promised something meanwhile.
    const held = { worker: own.worker, most };
    tab.signing.add(held);
    try {
      const cumulative = own.spent + promisedTo(tab, own);
      const voucher = await signVoucher(ledger.hashing, key, {
        ...{ chain: ledger.genesisHash, session: tab.session, nonce: this.#nonces.next(), cumulative, most },
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
        book(tab, open, fee);
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
      book(tab, open, open.most);
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

  /** In the background, while there is room for more requests. */
  #addEarly(worker: AccountId): void {
    const name = toHex(worker);
    if (this.#adding.has(name)) return;
    this.#adding.add(name);
    this.#divide(worker, 0n)
      .catch(() => {})
      .finally(() => this.#adding.delete(name));
  }

  /** Allocates more to the worker, at least `least`; one after the other, since what is left is the same for all. */
  #divide(worker: AccountId, least: Balance): Promise<void> {
    const turn = this.#dividing.then(() => this.#allocate(worker, least));
    this.#dividing = turn.catch(() => {});
    return turn;
  }

  async #allocate(worker: AccountId, least: Balance): Promise<void> {
    const { ledger, funding, key } = this.#options;
    try {
      const state = await this.#open(least);
      const tab = this.#tab;
      const reserved = await allocationOf(ledger, tab.session, worker);
      if (reserved?.releasing !== undefined) {
        throw new PaidFailure('DEPOSIT_SPENT', 'the worker’s part of the deposit is on its way back');
      }
      // Another request may have added enough while this one waited for its turn.
      if (reserved !== undefined && least > 0n && room(reserved, tab, tabOf(tab, worker)) >= least) return;
      const part = (funding?.deposit ?? state.deposit) / PARTS;
      const wanted = part > least ? part : least;
      const entry = reserved === undefined ? inference.ENTRY_DEPOSIT : 0n;
      let free = unallocated(state) - entry;
      if (free < wanted && funding !== undefined) {
        const missing = wanted - free;
        const amount = missing > funding.deposit ? missing : funding.deposit;
        await topUp(ledger, funding.payer, tab.session, amount);
        free += amount;
      }
      if (free < wanted) await this.#releaseIdle(tab, worker);
      const amount = free < wanted ? free : wanted;
      if (amount < least || amount <= 0n) {
        throw new PaidFailure('DEPOSIT_SPENT', 'the session’s deposit is spent, or other workers have it: top it up');
      }
      await allocate(ledger, funding?.payer ?? key, tab.session, worker, amount);
    } catch (problem) {
      if (!(problem instanceof LedgerError)) throw problem;
      const who = funding === undefined ? 'session’s key' : 'payer';
      throw new PaidFailure('NO_FUNDS', `the ${who} cannot allocate to the worker: ${problem.message}`, problem.code);
    }
  }

  /** The session under way, or another one where it is closed. */
  async #open(least: Balance): Promise<inference.Session> {
    const { ledger, funding, key } = this.#options;
    const state = await sessionOf(ledger, this.#tab.session);
    if (state !== undefined && state.closing === undefined) return state;
    if (funding === undefined) throw new PaidFailure('SESSION_CLOSED', 'the session is closed: open another one');
    const { payer, deposit } = funding;
    const amount = (least > deposit ? least : deposit) + inference.ENTRY_DEPOSIT;
    const { day } = this.#tab;
    this.#tab = { ...(await begin(ledger, { payer, deposit: amount }, key)), day };
    await this.#remember(this.#tab);
    const opened = await sessionOf(ledger, this.#tab.session);
    if (opened === undefined) throw new PaidFailure('NO_SESSION', 'the session that was opened is not there');
    return opened;
  }

  /** Asks back what workers have that nobody asks any more. It takes them some blocks. */
  async #releaseIdle(tab: Tab, wanted: AccountId): Promise<void> {
    const { ledger, funding, key } = this.#options;
    for (const own of [...tab.workers.values()]) {
      const idle = Date.now() - own.askedAt > IDLE_MS && promisedTo(tab, own) === 0n;
      if (!idle || sameAccount(own.worker, wanted)) continue;
      const reserved = await allocationOf(ledger, tab.session, own.worker);
      if (reserved === undefined || room(reserved, tab, own) <= 0n) continue;
      await release(ledger, funding?.payer ?? key, tab.session, own.worker);
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

/** Of the text: another one is of another version's vouchers, and says nothing. */
const FORMAT = 2;

interface KeptTab {
  readonly format: number;
  readonly session: string;
  readonly spent: string;
  readonly workers: readonly { readonly worker: string; readonly spent: string; readonly askedAt: number }[];
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
    format: FORMAT,
    session: String(session),
    spent: String(spent),
    workers: [...tab.workers].map(([worker, each]) => ({
      ...{ worker, spent: String(each.spent), askedAt: each.askedAt },
    })),
    day: { number: day.number, spent: String(day.spent) },
    open,
  };
  return JSON.stringify(kept);
}

function tabFrom(text: string): Tab | undefined {
  const kept = JSON.parse(text) as KeptTab;
  if (kept.format !== FORMAT) return undefined;
  const tab = emptyTab(BigInt(kept.session) as SessionId, BigInt(kept.spent));
  if (kept.day !== undefined) tab.day = { number: kept.day.number, spent: BigInt(kept.day.spent) };
  for (const { worker, spent, askedAt } of kept.workers) {
    tab.workers.set(worker, { worker: asAccountId(fromHex(worker)), spent: BigInt(spent), askedAt });
  }
  for (const { question, voucher, seed, most, at } of kept.open ?? []) {
    const signed = decode(signedVoucher, fromHex(voucher));
    tab.unheard.add({ question, voucher: signed, seed: BigInt(seed), most: BigInt(most), at });
  }
  return tab;
}
