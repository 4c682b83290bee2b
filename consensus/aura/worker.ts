/**
 * Authors blocks: wakes at every slot, and when it is this node's turn has a block built, signs it, and hands it to the
 * import, from where it goes out. The slot is written down first, so that no crash makes it author one slot twice.
 */
import type { BlockImport, BlockRef, Keystore, Service } from '../../node/ports/chain.ts';
import type { Clock, Journal, Log } from '../../node/ports/machine.ts';
import type { Hashing } from '../../runtime/host.ts';
import { type DigestItem, type Header, headerHash } from '../../runtime/primitives/header.ts';
import { InvalidBlock } from '../../runtime/primitives/invalid-block.ts';
import { decode, encode, u64 } from '../../runtime/primitives/scale/codec.ts';
import { authorOf, type Slot, slotAt, slotDigest, slotOf, slotStart, withSeal } from './slots.ts';

const JOURNAL_KEY = 'aura/last-slot';
const KEY_TYPE = 'aura';

export interface Proposal {
  /** Without a seal; its digest begins with the slot's. */
  readonly header: Header;
  readonly extrinsics: readonly Uint8Array[];
}

export interface ProposalRequest {
  readonly parent: BlockRef;
  readonly slot: Slot;
  /** Goes into the block's digest. */
  readonly preRuntime: DigestItem;
  /** Unix milliseconds of the slot's start, for the timestamp inherent. */
  readonly timestamp: number;
  /** Data of further inherents, by their identifiers. */
  readonly inherents?: Readonly<Record<string, Uint8Array>>;
  /** Unix milliseconds: no further transactions after this, so that the block is imported within its slot. */
  readonly deadline: number;
  /** Aborted when the block would come too late to be of use. */
  readonly signal: AbortSignal;
}

export interface AuraPorts {
  readonly best: () => { readonly ref: BlockRef; readonly header: Header };
  /** Those who author on top of a block. Undefined when its state is gone. */
  readonly authorities: (parent: BlockRef) => readonly Uint8Array[] | undefined;
  readonly propose: (request: ProposalRequest) => Promise<Proposal>;
  readonly importer: Pick<BlockImport, 'import'>;
  readonly isMajorSyncing: () => boolean;
  readonly keystore: Pick<Keystore, 'has' | 'sign'>;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly journal: Journal;
  readonly clock: Clock;
  readonly log: Log;
}

export interface AuraOptions {
  readonly slotMs: number;
  /** Part of the slot for filling the block (Substrate: 2/3); the rest is for import and travel. */
  readonly proposalShare?: number;
  /** Authors alone, whatever the network says: development chains. */
  readonly forceAuthoring?: boolean;
}

export class AuraError extends Error {
  /** `JOURNAL`: the slot could not be written down, so nothing may be authored. */
  readonly code: 'JOURNAL' | 'CORRUPT_JOURNAL';
  constructor(code: AuraError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export type SlotOutcome =
  | { readonly type: 'authored'; readonly slot: Slot; readonly number: number; readonly extrinsics: number }
  | {
      readonly type: 'skipped';
      readonly slot: Slot;
      readonly reason:
        | 'syncing'
        | 'notOurTurn'
        | 'slotTaken'
        | 'alreadyAuthored'
        | 'noState'
        | 'tooLate'
        | 'proposalFailed'
        | 'disabled'
        | 'keyGone'
        | 'notImported';
    };

export class AuraWorker implements Service {
  readonly name = 'aura';
  readonly #ports: AuraPorts;
  readonly #slotMs: number;
  readonly #share: number;
  readonly #force: boolean;
  #lastSlot: Slot | undefined;
  #loaded = false;

  constructor(ports: AuraPorts, options: AuraOptions) {
    this.#ports = ports;
    this.#slotMs = options.slotMs;
    this.#share = options.proposalShare ?? 2 / 3;
    this.#force = options.forceAuthoring ?? false;
  }

  /** Authors until the signal. Rejects with {@link AuraError} when the journal fails. */
  async run(signal: AbortSignal): Promise<void> {
    // A node that starts early in a slot need not wait for the next one.
    const current = this.#current();
    const late = this.#ports.clock.now() - slotStart(current, this.#slotMs) > this.#slotMs / 2;
    let done = late ? current : current - 1;
    while (!signal.aborted) {
      const slot = await this.#nextSlot(done, signal);
      if (slot === undefined) return;
      done = slot;
      await this.claim(slot, signal);
    }
  }

  #current(): Slot {
    return slotAt(this.#ports.clock.now(), this.#slotMs);
  }

  /** Waits for a slot later than `after`; one that is missed because building took long is not made up for. */
  #nextSlot(after: Slot, signal: AbortSignal): Promise<Slot | undefined> {
    const { clock } = this.#ports;
    return new Promise((resolve) => {
      let cancel: () => void = () => {};
      const stop = (): void => {
        cancel();
        resolve(undefined);
      };
      const wait = (): void => {
        const slot = this.#current();
        if (slot > after) {
          signal.removeEventListener('abort', stop);
          resolve(slot);
          return;
        }
        // Timers ring early at times, and clocks are set: look again rather than trust one wait.
        const ms = slotStart(after + 1, this.#slotMs) - clock.now();
        cancel = clock.after(Math.min(Math.max(ms, 1), 1_000), wait);
      };
      signal.addEventListener('abort', stop, { once: true });
      if (signal.aborted) stop();
      else wait();
    });
  }

  /** Makes the block of a slot if that is this node's to do. */
  async claim(slot: Slot, signal: AbortSignal): Promise<SlotOutcome> {
    const { importer, journal, keystore, hashing, log } = this.#ports;
    const skip = (reason: Extract<SlotOutcome, { type: 'skipped' }>['reason']): SlotOutcome => ({
      type: 'skipped',
      slot,
      reason,
    });
    if (!this.#force && this.#ports.isMajorSyncing()) return skip('syncing');
    const { ref: parent, header: parentHeader } = this.#ports.best();
    const authorities = this.#ports.authorities(parent);
    if (authorities === undefined) return skip('noState');
    const author = authorOf(slot, authorities);
    if (author === undefined || !keystore.has(KEY_TYPE, author)) return skip('notOurTurn');
    const parentSlot = slotOf(parentHeader);
    if (parentSlot !== undefined && slot <= parentSlot) return skip('slotTaken');
    const last = await this.#lastAuthored();
    if (last !== undefined && slot <= last) return skip('alreadyAuthored');

    const proposal = await this.#propose(slot, parent, signal);
    if (typeof proposal === 'string') return skip(proposal);
    const preHash = headerHash(hashing, proposal.header);
    const signature = keystore.sign(KEY_TYPE, author, preHash);
    if (signature === undefined) return skip('keyGone');
    // Between this line and the next restart there is at most one block of this slot, whether or not it gets out.
    try {
      await journal.put(JOURNAL_KEY, encode(u64, BigInt(slot)));
    } catch (error) {
      throw new AuraError('JOURNAL', `slot ${slot} could not be written down: ${(error as Error).message}`);
    }
    this.#lastSlot = slot;
    const header = withSeal(proposal.header, signature);
    const result = await importer.import({ header, extrinsics: [...proposal.extrinsics] }, { origin: 'own' });
    if (result.type === 'abandoned') {
      // Built on what this node knew, after some time away, while others had gone on.
      log('info', 'our own block came too late: finality has left its fork', { slot, number: header.number });
      return skip('tooLate');
    }
    if (result.type !== 'imported') {
      log('error', 'our own block was not imported', { slot, number: header.number, result });
      return skip('notImported');
    }
    return { type: 'authored', slot, number: header.number, extrinsics: proposal.extrinsics.length };
  }

  async #propose(
    slot: Slot,
    parent: BlockRef,
    signal: AbortSignal,
  ): Promise<Proposal | 'tooLate' | 'proposalFailed' | 'disabled'> {
    const { clock, log } = this.#ports;
    const start = slotStart(slot, this.#slotMs);
    const end = start + this.#slotMs;
    const now = clock.now();
    // Begun late, by a busy machine: what is left of the slot is divided in the same way.
    const left = end - now;
    if (left <= 0) return 'tooLate';
    const deadline = now + Math.min(left, this.#slotMs) * this.#share;
    const abort = new AbortController();
    const giveUp = (): void => abort.abort();
    // A full slot of grace: late, the block still counts as long as nobody built on its parent meanwhile.
    const cancel = clock.after(left + this.#slotMs, giveUp);
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      const preRuntime = slotDigest(slot);
      const proposal = await this.#ports.propose({
        parent,
        slot,
        preRuntime,
        timestamp: start,
        deadline,
        signal: abort.signal,
      });
      if (abort.signal.aborted) return 'tooLate';
      if (clock.now() > end) {
        log('warn', 'a block took longer than its slot', { slot, ms: clock.now() - start });
        if (this.#ports.best().ref.number > parent.number) return 'tooLate';
      }
      return proposal;
    } catch (error) {
      if (abort.signal.aborted) return 'tooLate';
      if (error instanceof InvalidBlock && error.code === 'AUTHOR_DISABLED') {
        log('info', 'this validator is out of duty for an offence', { slot });
        return 'disabled';
      }
      log('error', 'a block could not be built', { slot, error: (error as Error).message });
      return 'proposalFailed';
    } finally {
      cancel();
      signal.removeEventListener('abort', giveUp);
    }
  }

  async #lastAuthored(): Promise<Slot | undefined> {
    if (this.#loaded) return this.#lastSlot;
    const bytes = await this.#ports.journal.get(JOURNAL_KEY);
    if (bytes !== undefined) {
      try {
        this.#lastSlot = Number(decode(u64, bytes));
      } catch (error) {
        throw new AuraError('CORRUPT_JOURNAL', `the last authored slot cannot be read: ${(error as Error).message}`);
      }
    }
    this.#loaded = true;
    return this.#lastSlot;
  }
}
