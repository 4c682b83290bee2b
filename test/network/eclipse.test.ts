/** What strangers can not do: take all places of a node from one address range, or stop it by claiming heights. */
import t from 'tap';
import { uniforms } from '../../gpu-worker/attribution/seeded.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { MAX_PER_RANGE } from '../../p2p/host/host.ts';
import type { Network } from '../../p2p/network.ts';
import type { Header } from '../../runtime/primitives/header.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { until } from '../support/until.ts';
import { Identity, type Victim } from './attacks.ts';
import { type Detour, detour, portOf, through } from './detour.ts';
import { directories, type Member, startMember } from './nodes.ts';

const spec = presetSpec('local', { slotDurationMs: 1_000, authorities: ['Alice'] });

/** A validator of a live chain, where every address is one of a range. */
async function validator() {
  const homes = await directories(1);
  const live = { ...spec, chainType: 'Live' } as const;
  const directory = homes.paths[0]!;
  const member = await startMember({ name: 'Alice', spec: live, directory, authority: '//Alice', bootNodes: [] });
  return {
    member,
    close: async () => {
      await member.stop();
      await homes.remove();
    },
  };
}

function asVictim({ node, address }: Member, claim: (best: Header) => Header = (best) => best): Victim {
  const { blocks } = node.client;
  const { genesisHash } = blocks.info();
  const best = () => claim(blocks.header(blocks.info().best.hash)!);
  return { address, peerId: node.network.peerId(), genesisHash, voters: [], best };
}

t.test('one address range has so many places and no more', { timeout: 60_000 }, async (test) => {
  const { member, close } = await validator();
  const network = member.node.network as Network;
  const next = uniforms(5n);
  const strangers: Identity[] = [];
  const detours: Detour[] = [];
  try {
    const victim = asVictim(member);
    const knock = async (localAddress: string): Promise<Identity | undefined> => {
      try {
        const way = await detour(portOf(member.address), localAddress);
        detours.push(way);
        const who = await Identity.connect({ ...victim, address: through(member.address, way) }, next);
        strangers.push(who);
        await who.greet('block-announces/1');
        return who;
      } catch {
        return undefined;
      }
    };
    const isPeer = (who: Identity | undefined): boolean => network.peers().some(({ peerId }) => peerId === who?.id);
    // All at once, so that each comes in before the others are counted.
    const crowd = await Promise.all(Array.from({ length: 3 * MAX_PER_RANGE }, (_, i) => knock(`127.0.5.${i + 1}`)));
    test.equal(crowd.filter(isPeer).length, MAX_PER_RANGE, 'those of one range');
    test.equal(await knock('127.0.5.200'), undefined, 'one more');
    const elsewhere = await knock('127.0.6.1');
    test.ok(isPeer(elsewhere), 'one from elsewhere');
    // Whoever leaves makes room.
    await crowd.find(isPeer)!.host.stop();
    await until('its place is free', () => crowd.filter(isPeer).length === MAX_PER_RANGE - 1);
    test.ok(isPeer(await knock('127.0.5.201')), 'one more, when another has left');
  } finally {
    await Promise.allSettled(strangers.map(({ host }) => host.stop()));
    for (const way of detours) way.close();
    await close();
  }
});

t.test('heights without blocks stop nobody from authoring', { timeout: 60_000 }, async (test) => {
  const { member, close } = await validator();
  const { blocks } = member.node.client;
  const liars: Identity[] = [];
  try {
    await until('a block is final', () => blocks.info().finalized.number >= 1);
    const next = uniforms(6n);
    const high = asVictim(member, (best) => ({ ...best, number: best.number + 1_000_000, parentHash: someHash(next) }));
    for (let i = 0; i < 3; i++) {
      const liar = await Identity.connect(high, next);
      liars.push(liar);
      // It takes requests and lets them wait.
      await liar.host.handle(`${liar.prefix}/sync/2`, () => {});
      await liar.greet('block-announces/1');
    }
    const before = blocks.info().best.number;
    let syncing = 0;
    await until(
      'ten blocks more',
      () => {
        if (member.node.network.isMajorSyncing()) syncing++;
        return blocks.info().best.number >= before + 10;
      },
      40,
    );
    test.equal(syncing, 0, 'it was never said to be syncing');
    const response = await fetch(member.node.rpc.http, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'system_health', params: [] }),
    });
    const { result } = (await response.json()) as { result: { isSyncing: boolean; peers: number } };
    test.same(result, { peers: 3, isSyncing: false, shouldHavePeers: true });
  } finally {
    await Promise.allSettled(liars.map(({ host }) => host.stop()));
    await close();
  }
});

const someHash = (next: () => number) => asHash(Uint8Array.from({ length: 32 }, () => next() * 256));
