/**
 * A node in this process that takes part in everything but the decisions, and remembers every vote and every block that reached it,
 * over all rounds: what one validator may never contradict, whatever becomes of its process.
 */
import { authorOf, slotOf } from '../../../consensus/aura/slots.ts';
import { decodeGossip, idBytes, signingPayload } from '../../../consensus/grandpa/messages.ts';
import type { SignedVote, VoteKind } from '../../../consensus/grandpa/votes.ts';
import type { Chain } from '../../../node/chain/chain.ts';
import type { ChainSpec } from '../../../node/chain-spec/chain-spec.ts';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import type { VoterPort } from '../../../p2p/chain/finality.ts';
import type { Network } from '../../../p2p/network.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { type Member, startMember } from '../../network/nodes.ts';
import type { Place } from './heads.ts';

export interface HeardVote {
  readonly setId: number;
  readonly round: number;
  readonly kind: VoteKind;
  /** Hash of the block, in hex. */
  readonly hash: string;
}

export interface HeardBlock extends Place {
  readonly slot: number;
  readonly hash: string;
}

export class Witness {
  readonly member: Member;
  readonly faults: string[] = [];
  readonly #votes = new Map<string, string>();
  readonly #blocks = new Map<string, string>();
  readonly #votesOf: string;
  readonly #blocksOf: string;
  #newVotes: HeardVote[] = [];
  #newBlocks: HeardBlock[] = [];

  private constructor(member: Member, votesOf: string, blocksOf: string) {
    this.member = member;
    this.#votesOf = votesOf;
    this.#blocksOf = blocksOf;
  }

  /** `suspect`: its keys, those of GRANDPA and of Aura. */
  static async start(
    spec: ChainSpec,
    directory: string,
    suspect: { readonly grandpa: Uint8Array; readonly aura: Uint8Array },
  ): Promise<Witness> {
    const member = await startMember({ name: 'witness', spec, directory, authority: undefined, bootNodes: [] });
    const witness = new Witness(member, toHex(suspect.grandpa), toHex(suspect.aura));
    const network = member.node.network as Network;
    await network.grounded;
    // The node's own voter is put in its place first; this takes it.
    await new Promise((resolve) => setImmediate(resolve));
    network.attachVoter(await witness.#listener());
    const { events, importer } = member.node.client;
    events.subscribe((event) => {
      if (event.type !== 'imported') return;
      const { header, block } = event;
      const parent = { hash: header.parentHash, number: block.number - 1 };
      const slot = slotOf(header)!;
      const author = authorOf(slot, (importer as Chain).auraAuthorities(parent) ?? []);
      if (author !== undefined)
        witness.#noteBlock(toHex(author), {
          ...{ number: block.number, parent: toHex(header.parentHash) },
          ...{ slot, hash: toHex(block.hash) },
        });
    });
    return witness;
  }

  get votes(): number {
    return this.#votes.size;
  }

  get blocks(): number {
    return this.#blocks.size;
  }

  /** Whatever was heard of the suspect since this was asked for last. */
  heard(): { readonly votes: readonly HeardVote[]; readonly blocks: readonly HeardBlock[] } {
    const news = { votes: this.#newVotes, blocks: this.#newBlocks };
    this.#newVotes = [];
    this.#newBlocks = [];
    return news;
  }

  async #listener(): Promise<VoterPort> {
    const signatures = await createSignatures();
    const note = (setId: number, round: number, vote: SignedVote): void => {
      const { kind, target, voter, signature } = vote;
      const place = `set ${setId}, round ${round}, ${kind} of ${voter}`;
      if (this.#votes.get(place) === target.hash) return;
      const payload = signingPayload(kind, target, round, setId);
      if (!signatures.verifyEd25519(signature, payload, idBytes(voter))) return;
      if (this.#votes.has(place)) this.faults.push(`two votes in ${place}`);
      this.#votes.set(place, target.hash);
      if (voter === this.#votesOf) this.#newVotes.push({ setId, round, kind, hash: target.hash });
    };
    return {
      connected() {},
      disconnected() {},
      async message(_from, bytes) {
        const message = decodeGossip(bytes);
        if (message.type === 'vote') note(message.setId, message.round, message.vote);
        if (message.type === 'commit')
          for (const each of message.commit.precommits) note(message.setId, message.round, each);
        if (message.type === 'catchUp') {
          const { round, prevotes, precommits } = message.catchUp;
          for (const each of [...prevotes, ...precommits]) note(message.setId, round, each);
        }
        return { type: 'ignore' };
      },
    };
  }

  #noteBlock(author: string, block: HeardBlock): void {
    const place = `slot ${block.slot} by ${author}`;
    const before = this.#blocks.get(place);
    if (before === block.hash) return;
    if (before !== undefined) this.faults.push(`two blocks in ${place}`);
    this.#blocks.set(place, block.hash);
    if (author === this.#blocksOf) this.#newBlocks.push(block);
  }
}
