/**
 * Takes evidence against validators to the chain. Votes come from the GRANDPA voter; blocks are watched here: two of one slot
 * by one author are an offence. A report is an unsigned transaction that this node's own block brings in, so only
 * authorities report; one that a reorganisation throws out is handed in again until a final block has it.
 */
import { noteHeader, nothingSeen, type SeenSlots } from '../../consensus/aura/equivocation.ts';
import { authorOf, slotOf } from '../../consensus/aura/slots.ts';
import { idBytes } from '../../consensus/grandpa/messages.ts';
import type { Equivocation } from '../../consensus/grandpa/votes.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { type SlotEquivocation, slotEquivocation } from '../../runtime/primitives/equivocation.ts';
import type { Header } from '../../runtime/primitives/header.ts';
import { bytes, decode, encode, fixedBytes, option, struct, u64 } from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import type { Chain } from '../chain/chain.ts';
import type { Keystore, Pool, Service } from '../ports/chain.ts';
import type { Log } from '../ports/machine.ts';

/** Reports under way; there are never more offenders than validators. */
const MAX_PENDING = 256;
/** Finalizations after which a report that no block takes is given up. */
const PATIENCE = 1_000;

interface Pending {
  readonly report: Uint8Array;
  readonly patience: number;
}

export interface EquivocationPorts {
  readonly chain: Pick<Chain, 'blocks' | 'call' | 'callOffchain' | 'validate' | 'auraAuthorities' | 'authoritySet'>;
  readonly pool: Pick<Pool, 'submit'>;
  readonly keystore: Pick<Keystore, 'has'>;
  readonly isMajorSyncing: () => boolean;
  readonly log: Log;
}

const ownership = option(bytes());
const setQuestion = struct({ setId: u64, key: fixedBytes(32) });
const slotQuestion = struct({ slot: u64, key: fixedBytes(32) });

export class EquivocationReporter implements Service {
  readonly name = 'equivocations';
  readonly #ports: EquivocationPorts;
  #seen: SeenSlots = nothingSeen;
  #pending: readonly Pending[] = [];

  constructor(ports: EquivocationPorts) {
    this.#ports = ports;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { blocks } = this.#ports.chain;
    const unsubscribe = blocks.subscribe((event) => {
      if (event.type === 'imported') this.#look(event.header);
      if (event.type === 'finalized') void this.#again();
    });
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    unsubscribe();
  }

  /** Two votes in one round. `encoded` is Substrate's `EquivocationProof`. */
  async reportVotes(votes: Equivocation, encoded: Uint8Array): Promise<void> {
    const { chain, keystore, log } = this.#ports;
    const key = idBytes(votes.voter);
    if (keystore.has('gran', key)) {
      log('error', 'this node’s own key voted twice: it must not run on two machines', { voter: votes.voter });
      return;
    }
    const question = encode(setQuestion, { setId: BigInt(votes.setId), key });
    const at = this.#stateOf(votes.setId);
    const proof = at && decode(ownership, chain.call(at, 'GrandpaApi_generate_key_ownership_proof', question));
    await this.#submit('GrandpaApi', encoded, proof, { voter: votes.voter, round: votes.round });
  }

  /** A block whose state has the session of a set: the best one, or the last of those that a set finalized. */
  #stateOf(setId: number): Hash | undefined {
    const { chain } = this.#ports;
    const { best } = chain.blocks.info();
    const current = Number(decode(u64, chain.call(best.hash, 'GrandpaApi_current_set_id', new Uint8Array())));
    if (setId === current) return best.hash;
    const last = chain.authoritySet().setChanges[setId];
    // The last block of a set announces the next one, and with it the next session.
    return last === undefined ? undefined : chain.blocks.hashOf(last - 1);
  }

  /** Blocks come here verified, with their author's seal. */
  #look(sealed: Header): void {
    const { chain, log } = this.#ports;
    const slot = slotOf(sealed);
    if (slot === undefined || this.#ports.isMajorSyncing()) return;
    const parent = { hash: sealed.parentHash, number: sealed.number - 1 };
    const author = authorOf(slot, chain.auraAuthorities(parent) ?? []);
    if (author === undefined) return;
    const { seen, equivocation } = noteHeader(this.#seen, slot, author, sealed);
    this.#seen = seen;
    if (equivocation === undefined) return;
    void this.#reportBlocks(equivocation, parent.hash).catch((problem: unknown) => {
      log('warn', 'the equivocation could not be reported', { slot, problem: String(problem) });
    });
  }

  async #reportBlocks(proof: SlotEquivocation, parent: Hash): Promise<void> {
    const { chain, keystore, log } = this.#ports;
    const key = proof.offender;
    const slot = Number(proof.slot);
    log('warn', 'an author made two blocks in one slot', { author: toHex(key), slot });
    if (keystore.has('aura', key)) {
      log('error', 'this node’s own key sealed two blocks: it must not run on two machines', { slot });
      return;
    }
    const question = encode(slotQuestion, { slot: proof.slot, key });
    const owner = decode(ownership, chain.call(parent, 'AuraEquivocationApi_generate_key_ownership_proof', question));
    await this.#submit('AuraEquivocationApi', encode(slotEquivocation, proof), owner, { author: toHex(key), slot });
  }

  async #submit(
    api: 'GrandpaApi' | 'AuraEquivocationApi',
    evidence: Uint8Array,
    owner: Uint8Array | undefined,
    who: Record<string, unknown>,
  ): Promise<void> {
    const { chain, log } = this.#ports;
    if (owner === undefined) {
      log('warn', 'an equivocation by a key that belongs to no validator, or too long ago', who);
      return;
    }
    const parameters = new Uint8Array([...evidence, ...encode(bytes(), owner)]);
    const method = `${api}_submit_report_equivocation_unsigned_extrinsic`;
    const { transactions } = chain.callOffchain(chain.blocks.info().best.hash, method, parameters);
    for (const each of transactions) await this.#handIn(each, who);
  }

  async #handIn(report: Uint8Array, who: Record<string, unknown>): Promise<void> {
    const { pool, log } = this.#ports;
    if (this.#pending.length < MAX_PENDING) this.#pending = [...this.#pending, { report, patience: PATIENCE }];
    try {
      await pool.submit(report, 'local');
      log('info', 'an equivocation is reported', who);
    } catch (problem) {
      // Known on the chain, or in the pool already.
      log('debug', 'a report was not taken', { ...who, problem: String(problem) });
    }
  }

  /** What no final block has yet goes to the pool again; what one has is forgotten. */
  async #again(): Promise<void> {
    const { chain, pool } = this.#ports;
    if (this.#pending.length === 0) return;
    const { finalized } = chain.blocks.info();
    const isFinal = (report: Uint8Array): boolean => {
      const answer = chain.validate(finalized.hash, 'Local', report);
      return !answer.ok && answer.error.value.type === 'Stale';
    };
    this.#pending = this.#pending.flatMap(({ report, patience }) =>
      patience === 0 || isFinal(report) ? [] : [{ report, patience: patience - 1 }],
    );
    // In the pool already, or known to the best chain: then it is refused, which is fine.
    for (const { report } of this.#pending) await pool.submit(report, 'local').catch(() => {});
  }
}
