/** New blocks: whole by gossip, their headers by `block-announces/1`. */
import type { Blocks, ChainEvent } from '../../node/ports/chain.ts';
import type { Hashing } from '../../runtime/host.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import {
  type Block,
  block as blockCodec,
  type Header,
  header as headerCodec,
  headerHash,
} from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError, Source } from '../../runtime/primitives/scale/io.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { blockAnnounce } from '../protocols/announce.ts';
import type { SyncDriver } from '../sync/driver.ts';
import { ACCEPT, IGNORE, malformed, type Room, type Verdict } from '../wire/gossip.ts';
import type { Notifications } from '../wire/notifications.ts';

/** The runtime's longest block (5 MiB of extrinsics), with its header and lengths. */
export const MAX_BLOCK_BYTES = 5.5 * 1024 * 1024;

/**
 * Whether the seal is the author's and the body (where there is one) the header's, so that whoever passes it on cannot be to
 * blame for it.
 * `unknown`: the parent is not here. `future`: its slot is not there yet.
 */
export type BlockCheck = (
  header: Header,
  extrinsics: readonly Uint8Array[] | undefined,
) => 'good' | 'bad' | 'unknown' | 'future';

export interface BlockPorts {
  readonly blocks: Blocks;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly checkBlock: BlockCheck;
  readonly direct: Notifications;
  readonly room: Room;
  readonly sync: SyncDriver;
  readonly isMajorSyncing: () => boolean;
  readonly peers: () => Iterable<{ readonly id: PeerId; readonly bestHash: Hash }>;
  /** A peer said that this is its best block. */
  readonly onBest: (peer: PeerId, hash: Hash, number: number) => void;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
}

const NOTHING = new Uint8Array();
/** Of gossip: a header with what comes after it, and extrinsics, of which no block's weight lets in so many. */
const MAX_HEADER_BYTES = 64 * 1024;
const MAX_EXTRINSICS = 20_000;
/** Blocks from gossip that wait for the importer. */
const MAX_IMPORTING = 16;

export class BlockNews {
  readonly #ports: BlockPorts;
  #importing = 0;

  constructor(ports: BlockPorts) {
    this.#ports = ports;
  }

  onChainEvent(event: ChainEvent): void {
    if (event.type !== 'imported') return;
    const { blocks, room, direct, peers, isMajorSyncing } = this.#ports;
    const { block, header, origin, isNewBest } = event;
    if (origin === 'own') {
      const extrinsics = [...(blocks.body(block.hash) ?? [])];
      room.publish(encode(blockCodec, { header, extrinsics }));
    }
    if (origin === 'genesis' || (origin !== 'own' && !isNewBest) || isMajorSyncing()) return;
    const announcement = encode(blockAnnounce, { header, isBest: isNewBest ? 1 : 0, data: NOTHING });
    for (const { id, bestHash } of peers()) if (!equalBytes(bestHash, block.hash)) direct.send(id, announcement);
  }

  /** A whole block by gossip. It goes on as soon as its seal is seen to be right; executing it takes longer. */
  heard(from: PeerId, message: Uint8Array): Verdict {
    const { blocks, hashing, checkBlock, sync, isMajorSyncing, onBest } = this.#ports;
    if (isMajorSyncing()) return IGNORE;
    // The header comes first: five megabytes of extrinsics under one that is known, or that nobody sealed, are not even taken apart.
    let header: Header;
    try {
      const head = new Source(message.slice(0, MAX_HEADER_BYTES));
      header = headerCodec.decodeFrom(head);
      head.compact(MAX_EXTRINSICS);
    } catch (problem) {
      return malformed('a malformed block', problem);
    }
    const hash = headerHash(hashing, header);
    if (blocks.header(hash) !== undefined) return { type: 'ignore', cost: FEE.staleTransaction };
    const seal = checkBlock(header, undefined);
    let block: Block = { header, extrinsics: [] };
    if (seal === 'good') {
      try {
        block = decode(blockCodec, message.slice());
      } catch (problem) {
        return malformed('a malformed block', problem);
      }
    }
    switch (seal === 'good' ? checkBlock(header, block.extrinsics) : seal) {
      case 'bad':
        return { type: 'reject', reason: 'a block with a wrong seal or body', cost: FEE.invalidBlock };
      case 'future':
        return IGNORE;
      case 'unknown':
        sync.take({ type: 'announced', peer: from, block: { hash, number: header.number }, isBest: true });
        return IGNORE;
      case 'good': {
        if (this.#importing >= MAX_IMPORTING) return IGNORE;
        this.#importing++;
        onBest(from, hash, header.number);
        const data = { hash, header: block.header, body: block.extrinsics, justifications: undefined };
        const done = (): void => {
          this.#importing--;
        };
        sync.gossiped(from, data).then(done, done);
        return ACCEPT;
      }
    }
  }

  announced(from: PeerId, message: Uint8Array): void {
    const { blocks, hashing, checkBlock, charge, sync, onBest } = this.#ports;
    try {
      const { header, isBest } = decode(blockAnnounce, message.slice());
      const block = { hash: headerHash(hashing, header), number: header.number };
      if (blocks.header(block.hash) === undefined && checkBlock(header, undefined) === 'bad') {
        charge(from, FEE.invalidBlock, 'an announced header has a wrong seal');
        return;
      }
      if (isBest === 1) onBest(from, block.hash, block.number);
      sync.take({ type: 'announced', peer: from, block, isBest: isBest === 1 });
    } catch (problem) {
      if (!(problem instanceof ScaleError)) throw problem;
      charge(from, FEE.malformed, `a malformed announcement: ${problem.message}`);
    }
  }
}
