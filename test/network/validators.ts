/** Validators with stakes in this process, and what tests ask of them. */
import { ApiPromise, WsProvider } from '@polkadot/api';
import { authorOf, slotOf } from '../../consensus/aura/slots.ts';
import type { Chain } from '../../node/chain/chain.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { directories, type Member, startMember } from './nodes.ts';

export const SLOT_MS = 1_000;
const NAMES = ['Alice', 'Bob', 'Charlie', 'Dave'];
export const URIS = NAMES.map((name) => `//${name}`);
/** What a busy machine has to say. */
export const SLOW = ['a block took longer than its slot'];

export const blocksOf = ({ node }: Member) => node.client.blocks;
export const finalized = (member: Member) => blocksOf(member).info().finalized.number;
export const best = (member: Member) => blocksOf(member).info().best;
export const chainOf = ({ node }: Member) => node.client.importer as Chain;
export const setId = (member: Member) => chainOf(member).authoritySet().setId;
export const connect = ({ node }: Member) =>
  ApiPromise.create({ provider: new WsProvider(node.rpc.ws) as never, noInitWarn: true });

/** New session keys of a node, with the proof that they are `owner`'s. */
export async function newSessionKeys({ node }: Member, owner: Uint8Array): Promise<{ keys: string; proof: string }> {
  const provider = new WsProvider(node.rpc.ws, false);
  await provider.connect();
  await provider.isReady;
  try {
    return await provider.send('author_rotateKeysWithOwner', [toHex(owner)]);
  } finally {
    await provider.disconnect();
  }
}

/** Who made the final blocks from `first` on, by Aura key. */
export function authors(member: Member, first: number): Set<string> {
  const seen = new Set<string>();
  for (let number = first; number <= finalized(member); number++) {
    const header = blocksOf(member).header(blocksOf(member).hashOf(number)!)!;
    const parent = { hash: header.parentHash, number: number - 1 };
    const author = authorOf(slotOf(header)!, chainOf(member).auraAuthorities(parent) ?? []);
    if (author !== undefined) seen.add(toHex(author));
  }
  return seen;
}

/** Those without a secret are validators too, with what keys they make. */
export async function startValidators(
  authorities: readonly (string | undefined)[],
  sessionLength: number,
  sessionsPerEra: number,
) {
  const spec = presetSpec('local', {
    slotDurationMs: SLOT_MS,
    authorities: NAMES.slice(0, authorities.filter((each) => each !== undefined).length),
    sessionLength,
    eras: { sessionsPerEra, bondingDuration: 20, slashDeferDuration: 0 },
  });
  const homes = await directories(authorities.length);
  const members: Member[] = [];
  for (const [i, authority] of authorities.entries()) {
    const bootNodes = members.map(({ address }) => address);
    const directory = homes.paths[i]!;
    members.push(await startMember({ name: `node${i}`, spec, directory, authority, validator: true, bootNodes }));
  }
  return {
    members,
    close: async () => {
      await Promise.allSettled(members.map((each) => each.stop()));
      await homes.remove();
    },
  };
}
