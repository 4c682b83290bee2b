/** Carries out what the sync machine decides: asks peers, imports, and tells how it is going. */

import type { BlockImport, BlockRef, Blocks, ImportResult } from '../../node/ports/chain.ts';
import type { Clock, Log } from '../../node/ports/machine.ts';
import type { Hashing } from '../../runtime/host.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { type Block, headerHash } from '../../runtime/primitives/header.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { type BlockData, type BlockRequest, decodeBlockResponse } from '../protocols/sync.ts';
import { duration } from './duration.ts';
import { type FailureReason, type SyncEffect, type SyncEvent, SyncMachine } from './machine.ts';

export interface SyncPorts {
  readonly blocks: Blocks;
  /** No chain can be higher by now than this. */
  readonly reachable: () => number;
  readonly importer: BlockImport;
  readonly prepare: (blocks: readonly Block[]) => void;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly request: (peer: PeerId, request: BlockRequest, signal: AbortSignal) => Promise<Uint8Array>;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  readonly drop: (peer: PeerId, reason: string) => void;
}

const TICK_MS = 250;
const PROGRESS_MS = 5_000;

export class SyncDriver {
  readonly #ports: SyncPorts;
  readonly #machine: SyncMachine;
  readonly #work = new Set<Promise<void>>();
  #signal: AbortSignal = AbortSignal.abort();

  constructor(ports: SyncPorts) {
    this.#ports = ports;
    const { blocks, reachable, clock } = ports;
    const chain = {
      info: () => blocks.info(),
      hashOf: (number: number) => blocks.hashOf(number),
      has: (hash: Parameters<Blocks['header']>[0]) => blocks.header(hash) !== undefined,
      reachable,
    };
    this.#machine = new SyncMachine(chain, () => clock.monotonic());
  }

  isMajorSyncing(): boolean {
    return this.#machine.isMajorSyncing();
  }

  target(): number | undefined {
    return this.#machine.target();
  }

  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    const progress = new Progress(this.#ports, this.#machine);
    const timer = setInterval(() => {
      this.take({ type: 'tick' });
      progress.tick();
    }, TICK_MS);
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    clearInterval(timer);
    await Promise.allSettled(this.#work);
  }

  take(event: SyncEvent): void {
    if (this.#signal.aborted) return;
    for (const effect of this.#machine.step(event)) this.#perform(effect);
  }

  /** Imports a block that came whole; the machine gets to know that it need not be asked for. */
  async gossiped(
    peer: PeerId,
    block: BlockData & { readonly header: NonNullable<BlockData['header']> },
  ): Promise<void> {
    const { importer, charge, log } = this.#ports;
    const { hash, header } = block;
    const ref: BlockRef = { hash, number: header.number };
    this.take({ type: 'arriving', hash });
    try {
      const result = await importer.import({ header, extrinsics: [...(block.body ?? [])] }, { origin: 'gossip' });
      // What lost to a block that became final while it waited is nobody's fault.
      if (result.type === 'invalid' && ref.number > this.#ports.blocks.info().finalized.number) {
        log('warn', `block #${ref.number} was invalid: ${result.reason}`, { peer });
        // Seal and body were checked before it was passed on: the author is to blame, not the neighbour.
        charge(peer, FEE.refused, result.reason);
      }
      this.take({ type: 'arrived', hash });
      if (result.type === 'unknownParent') this.take({ type: 'announced', peer, block: ref, isBest: false });
    } catch (problem) {
      this.take({ type: 'arrived', hash });
      log('error', `block #${ref.number} could not be imported`, { problem: String(problem) });
    }
  }

  #perform(effect: SyncEffect): void {
    switch (effect.type) {
      case 'request':
        this.#start(this.#request(effect.id, effect.peer, effect.request));
        return;
      case 'import':
        this.#start(this.#import(effect.id, effect.blocks));
        return;
      case 'justify':
        this.#start(this.#justify(effect));
        return;
      case 'charge':
        this.#ports.charge(effect.peer, effect.cost, effect.reason);
        return;
      case 'drop':
        this.#ports.drop(effect.peer, effect.reason);
        return;
    }
  }

  #start(work: Promise<void>): void {
    const done = work.finally(() => this.#work.delete(done));
    this.#work.add(done);
  }

  async #request(id: number, peer: PeerId, request: BlockRequest): Promise<void> {
    let event: SyncEvent;
    try {
      const bytes = await this.#ports.request(peer, request, this.#signal);
      const blocks = decodeBlockResponse(bytes, request.fields, request.max);
      for (const { hash, header } of blocks) {
        if (header !== undefined && !equalBytes(headerHash(this.#ports.hashing, header), hash)) {
          throw new NetworkError('MALFORMED', 'a header has another hash than it is sent under');
        }
      }
      event = { type: 'response', id, blocks };
    } catch (problem) {
      const code = problem instanceof NetworkError ? problem.code : 'MALFORMED';
      const reason: FailureReason =
        code === 'TIMEOUT' ? 'timeout' : code === 'MALFORMED' || code === 'TOO_LARGE' ? 'malformed' : 'closed';
      event = { type: 'failed', id, reason };
    }
    this.take(event);
  }

  async #import(id: number, blocks: readonly BlockData[]): Promise<void> {
    const { importer, prepare, log } = this.#ports;
    const whole = blocks.map(({ header, body }): Block => ({ header: header!, extrinsics: [...(body ?? [])] }));
    prepare(whole);
    let taken = 0;
    let result: ImportResult | undefined;
    for (const [i, block] of whole.entries()) {
      if (this.#signal.aborted) return;
      const justifications = blocks[i]?.justifications;
      try {
        const imported = await importer.import(block, {
          origin: 'sync',
          ahead: this.#machine.isMajorSyncing(),
          ...(justifications && { justifications }),
        });
        if (imported.type !== 'imported' && imported.type !== 'known') {
          result = imported;
          break;
        }
      } catch (problem) {
        log('error', `block #${block.header.number} could not be imported`, { problem: String(problem) });
        result = { type: 'unknownParent' };
        break;
      }
      taken++;
    }
    this.take({ type: 'imported', id, taken, result });
  }

  async #justify({ peer, hash, proof }: Extract<SyncEffect, { type: 'justify' }>): Promise<void> {
    try {
      const result = await this.#ports.importer.importJustification(hash, proof);
      if (result.type === 'invalid') this.#ports.charge(peer, FEE.badResponse, result.reason);
    } catch (problem) {
      this.#ports.log('error', 'a justification could not be imported', { problem: String(problem) });
    }
  }
}

/** A line every few seconds while the chain is far behind. */
class Progress {
  readonly #ports: SyncPorts;
  readonly #machine: SyncMachine;
  #at: number;
  #number: number;
  #rate: number | undefined;

  constructor(ports: SyncPorts, machine: SyncMachine) {
    this.#ports = ports;
    this.#machine = machine;
    this.#at = ports.clock.monotonic();
    this.#number = ports.blocks.info().best.number;
  }

  tick(): void {
    const { clock, blocks, log } = this.#ports;
    const now = clock.monotonic();
    if (now - this.#at < PROGRESS_MS) return;
    const { best, finalized } = blocks.info();
    const rate = ((best.number - this.#number) * 1_000) / (now - this.#at);
    // Half of what was before, so that one slow block does not turn hours into days.
    this.#rate = this.#rate === undefined ? rate : (this.#rate + rate) / 2;
    this.#at = now;
    this.#number = best.number;
    if (!this.#machine.isMajorSyncing()) {
      this.#rate = undefined;
      return;
    }
    const target = this.#machine.target() ?? best.number;
    const left = this.#rate > 0 ? ` ${duration((target - best.number) / this.#rate)} left,` : '';
    log(
      'info',
      `syncing ${this.#rate.toFixed(1)} blocks/s, at #${best.number} of #${target},${left} finalized #${finalized.number}`,
    );
  }
}
