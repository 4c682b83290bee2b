/** How this node gets the chain, and gives it to others: the requests, the ways to sync, and which of them is under way. */
import type { PeerId as Libp2pPeerId } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import type { AuthoritySet } from '../../consensus/grandpa/authorities.ts';
import type { WarpImport } from '../../consensus/grandpa/warp-import.ts';
import type { BlockImport, BlockRef, Blocks, RuntimeCalls, StateRanges, States } from '../../node/ports/chain.ts';
import type { Clock, Log } from '../../node/ports/machine.ts';
import type { Hashing, Signatures } from '../../runtime/host.ts';
import type { Block } from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { NetworkError } from '../host/errors.ts';
import type { Host } from '../host/host.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import type { Limits } from '../limits/limits.ts';
import { decodeStateResponse, encodeStateRequest } from '../protocols/state.ts';
import { type BlockRequest, encodeBlockRequest } from '../protocols/sync.ts';
import { warpProof, warpRequest } from '../protocols/warp.ts';
import { Requests } from '../wire/requests.ts';
import { SyncDriver } from './driver.ts';
import { fetchHistory } from './history.ts';
import {
  answerLight,
  answerState,
  answerWarp,
  MAX_LIGHT_REQUEST,
  MAX_STATE_REQUEST,
  MAX_WARP_BYTES,
} from './proof-server.ts';
import { answerBlockRequest } from './server.ts';
import { type WarpPorts, WarpSync } from './warp.ts';

/** What sync reads and changes of the chain. */
export interface SyncedChain extends WarpImport {
  /** Blocks that will be imported soon, in this order: their signatures can be checked meanwhile. */
  prepare(blocks: readonly Block[]): void;
  readonly authoritySet: () => AuthoritySet;
}

export interface ChainSyncPorts {
  readonly host: Host;
  readonly prefix: string;
  readonly mode: 'full' | 'warp';
  readonly blocks: Blocks;
  /** No chain can be higher by now than this. */
  readonly reachable: () => number;
  readonly chain: SyncedChain;
  readonly importer: BlockImport;
  readonly states: States & StateRanges;
  readonly runtime: RuntimeCalls;
  readonly verifyRange: WarpPorts['verifyRange'];
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly signatures: Pick<Signatures, 'verifyEd25519'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Full nodes that are connected. */
  readonly peers: () => Iterable<{ readonly id: PeerId; readonly best: BlockRef }>;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  readonly count: () => void;
  readonly limits: Limits;
  readonly drop: (peer: PeerId, reason: string) => void;
}

const MIB = 2 ** 20;
const MAX_RESPONSE = 16 * MIB;
/** What answers mostly take at the most; a block, an entry or a value is not cut, whatever its size. */
const BLOCKS_BYTES = 3 * MIB;
const STATE_BYTES = 3 * MIB;
const LIGHT_BYTES = MIB;

export class ChainSync {
  readonly blocks: SyncDriver;
  readonly #ports: ChainSyncPorts;
  readonly #requests: {
    readonly blocks: Requests;
    readonly state: Requests;
    readonly warp: Requests;
    readonly light: Requests;
  };
  #warp: WarpSync | undefined;
  #grounded: () => void = () => {};
  /** Resolves when the chain stands where it goes on block by block; only then may this node vote. */
  readonly grounded: Promise<void>;

  constructor(ports: ChainSyncPorts) {
    this.#ports = ports;
    const { prefix, blocks, chain, states, runtime, clock, log, charge } = ports;
    const wire = { libp2p: ports.host, charge, count: ports.count, clock, limits: ports.limits, log };
    const proofs = { blocks, states, runtime, authoritySet: chain.authoritySet };
    /** Whoever asks what is no request pays for it. */
    const asked =
      (answer: (request: Uint8Array) => Uint8Array) =>
      (peer: PeerId, request: Uint8Array): Uint8Array => {
        try {
          return answer(request);
        } catch (problem) {
          const bad =
            problem instanceof ScaleError || (problem instanceof NetworkError && problem.code === 'MALFORMED');
          if (bad) charge(peer, FEE.malformed, `a malformed request: ${(problem as Error).message}`);
          throw problem;
        }
      };
    this.#requests = {
      blocks: new Requests(
        {
          name: `${prefix}/sync/2`,
          maxRequest: 1_024,
          maxResponse: MAX_RESPONSE,
          timeoutMs: 20_000,
          perSecond: 40,
          burst: 200,
          answerBytes: BLOCKS_BYTES,
          answer: asked((request) => answerBlockRequest(blocks, request)),
        },
        wire,
      ),
      state: new Requests(
        {
          name: `${prefix}/state/2`,
          maxRequest: MAX_STATE_REQUEST,
          maxResponse: MAX_RESPONSE,
          timeoutMs: 40_000,
          perSecond: 4,
          burst: 40,
          answerBytes: STATE_BYTES,
          answer: asked((request) => answerState(proofs, request)),
        },
        wire,
      ),
      warp: new Requests(
        {
          name: `${prefix}/sync/warp`,
          maxRequest: 32,
          maxResponse: MAX_WARP_BYTES,
          timeoutMs: 10_000,
          perSecond: 2,
          burst: 20,
          answerBytes: MAX_WARP_BYTES,
          answer: asked((request) => answerWarp(proofs, request)),
        },
        wire,
      ),
      light: new Requests(
        {
          name: `${prefix}/light/2`,
          maxRequest: MAX_LIGHT_REQUEST,
          maxResponse: MAX_RESPONSE,
          timeoutMs: 15_000,
          perSecond: 20,
          burst: 200,
          answerBytes: LIGHT_BYTES,
          answer: asked((request) => answerLight(proofs, request)),
        },
        wire,
      ),
    };
    this.blocks = new SyncDriver({
      blocks,
      reachable: ports.reachable,
      importer: ports.importer,
      prepare: (list) => chain.prepare(list),
      hashing: ports.hashing,
      clock,
      log,
      request: (peer, request, signal) => this.#askBlocks(peer, request, signal),
      charge,
      drop: ports.drop,
    });
    this.grounded = new Promise((resolve) => {
      this.#grounded = resolve;
    });
  }

  async register(): Promise<void> {
    for (const each of Object.values(this.#requests)) await each.register();
  }

  forget(peer: PeerId): void {
    this.blocks.take({ type: 'disconnected', peer });
  }

  isMajorSyncing(): boolean {
    return this.#warp !== undefined || this.blocks.isMajorSyncing();
  }

  /** Best height that there is to get to. */
  target(): number | undefined {
    if (this.#warp === undefined) return this.blocks.target();
    let target: number | undefined;
    for (const { best } of this.#ports.peers()) if (target === undefined || best.number > target) target = best.number;
    return target;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { mode, blocks, peers, chain } = this.#ports;
    // Only a chain that has not begun may leap: what was once imported and executed is not left behind.
    if (mode === 'warp' && blocks.info().best.number === 0) {
      this.#warp = new WarpSync(this.#warpPorts());
      await this.#warp.run(signal);
      this.#warp = undefined;
    }
    this.#grounded();
    if (signal.aborted) return;
    const following = this.blocks.run(signal);
    // Who connected before now was not noted.
    for (const { id, best } of peers()) this.blocks.take({ type: 'connected', peer: id, best });
    const history = fetchHistory(
      {
        chain,
        peers: () => this.#heights(),
        request: (peer, request, until) => this.#askBlocks(peer, request, until),
        isMajorSyncing: () => this.blocks.isMajorSyncing(),
        charge: this.#ports.charge,
        clock: this.#ports.clock,
        log: this.#ports.log,
      },
      signal,
    );
    await Promise.all([following, history]);
  }

  #heights(): { readonly id: PeerId; readonly best: number }[] {
    return [...this.#ports.peers()].map(({ id, best }) => ({ id, best: best.number }));
  }

  #askBlocks(peer: PeerId, request: BlockRequest, signal: AbortSignal): Promise<Uint8Array> {
    return this.#requests.blocks.request(idOf(peer), encodeBlockRequest(request), signal);
  }

  #warpPorts(): WarpPorts {
    const { blocks, chain, verifyRange, hashing, signatures, charge, clock, log } = this.#ports;
    return {
      finalized: () => blocks.info().finalized,
      authoritySet: chain.authoritySet,
      peers: () => this.#heights(),
      askProof: async (peer, from, signal) =>
        decode(warpProof, await this.#requests.warp.request(idOf(peer), encode(warpRequest, from), signal)),
      askState: async (peer, request, signal) =>
        decodeStateResponse(await this.#requests.state.request(idOf(peer), encodeStateRequest(request), signal)),
      verifyRange,
      receiveState: () => chain.receiveState(),
      hashing,
      signatures,
      charge,
      clock,
      log,
    };
  }
}

const idOf = (peer: PeerId): Libp2pPeerId => peerIdFromString(peer);
