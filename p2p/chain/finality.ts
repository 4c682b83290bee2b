/** GRANDPA's messages: votes and commits by gossip among those who gossip, everything directly to the rest. */
import type { GrandpaNetwork, GrandpaVoter } from '../../consensus/grandpa/driver.ts';
import type { PeerId } from '../host/peer-scores.ts';
import type { SyncDriver } from '../sync/driver.ts';
import type { Room } from '../wire/gossip.ts';
import type { Notifications } from '../wire/notifications.ts';

export type VoterPort = Pick<GrandpaVoter, 'message' | 'connected' | 'disconnected'>;
type Verdict = Awaited<ReturnType<VoterPort['message']>>;

/** First byte of a message. */
const VOTE = 0;
const COMMIT = 1;

export interface FinalityPorts {
  readonly direct: Notifications;
  readonly room: Room;
  readonly sync: SyncDriver;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
}

export class Finality implements GrandpaNetwork {
  readonly #ports: FinalityPorts;
  #voter: VoterPort | undefined;
  readonly #open = new Set<PeerId>();

  constructor(ports: FinalityPorts) {
    this.#ports = ports;
  }

  attach(voter: VoterPort): void {
    this.#voter = voter;
    for (const peer of this.#open) voter.connected(peer);
  }

  opened(peer: PeerId): void {
    this.#open.add(peer);
    this.#voter?.connected(peer);
  }

  closed(peer: PeerId): void {
    if (this.#open.delete(peer)) this.#voter?.disconnected(peer);
  }

  /** By gossip: the verdict decides whether it goes on. */
  async heard(from: PeerId, bytes: Uint8Array): Promise<Verdict> {
    if (this.#voter === undefined) return { type: 'ignore' };
    if (bytes[0] !== VOTE && bytes[0] !== COMMIT) {
      return { type: 'reject', reason: 'a message that is not for everyone', cost: 100 };
    }
    const verdict = await this.#voter.message(from, bytes);
    if (verdict.type === 'accept') this.#toOthers(bytes);
    return verdict;
  }

  async told(from: PeerId, bytes: Uint8Array): Promise<void> {
    if (this.#voter === undefined) return;
    const verdict = await this.#voter.message(from, bytes);
    if (verdict.type === 'reject') this.#ports.charge(from, verdict.cost, verdict.reason);
    else if (verdict.type === 'accept' && (bytes[0] === VOTE || bytes[0] === COMMIT)) this.#ports.room.publish(bytes);
  }

  broadcast(bytes: Uint8Array, type: Parameters<GrandpaNetwork['broadcast']>[1]): void {
    if (type === 'vote' || type === 'commit') {
      this.#ports.room.publish(bytes);
      this.#toOthers(bytes);
    } else for (const peer of this.#open) this.#ports.direct.send(peer, bytes);
  }

  send(peer: PeerId, bytes: Uint8Array): void {
    this.#ports.direct.send(peer, bytes);
  }

  wantBlock(block: Parameters<GrandpaNetwork['wantBlock']>[0], from: PeerId): void {
    this.#ports.sync.take({ type: 'want', peer: from, block });
  }

  behind(peer: PeerId, packet: Parameters<GrandpaNetwork['behind']>[1]): void {
    this.#ports.sync.take({ type: 'behind', peer, finalized: packet.finalized });
  }

  charge(peer: PeerId, cost: number, reason: string): void {
    this.#ports.charge(peer, cost, reason);
  }

  /** Those who do not gossip. */
  #toOthers(bytes: Uint8Array): void {
    const members = this.#ports.room.members();
    for (const peer of this.#open) if (!members.has(peer)) this.#ports.direct.send(peer, bytes);
  }
}
