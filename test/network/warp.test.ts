/** Warp sync over real sockets: a chain whose authorities changed twice, a newcomer that leaps, and one that leaps after it. */
import { ApiPromise, Keyring, WsProvider } from '@polkadot/api';
import t from 'tap';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import type { ChainSpec } from '../../node/chain-spec/chain-spec.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode, u64 } from '../../runtime/primitives/scale/codec.ts';
import { asAccountId } from '../../runtime/primitives/types.ts';
import { keySet } from '../runtime/pallets/session-keys.ts';
import { until } from '../support/until.ts';
import { directories, type Member, startMember } from './nodes.ts';

const info = ({ node }: Member) => node.client.blocks.info();
const setId = ({ node }: Member) => {
  const { blocks, runtime } = node.client;
  return decode(u64, runtime.call(blocks.info().finalized.hash, 'GrandpaApi_current_set_id', new Uint8Array()));
};

function specWithShortSessions(): ChainSpec {
  const spec = presetSpec('dev', { slotDurationMs: 250 });
  if (spec.genesis.type !== 'config') throw new Error('the preset is made of a configuration');
  return { ...spec, genesis: { ...spec.genesis, config: { ...spec.genesis.config, sessionLength: 3 } } };
}

/** Gives the only authority other keys, one pair after the other; under each a new set begins two sessions later. */
async function rotate(member: Member, names: readonly string[]): Promise<void> {
  const api = await ApiPromise.create({ provider: new WsProvider(member.node.rpc.ws) as never, noInitWarn: true });
  try {
    const stash = new Keyring({ type: 'sr25519' }).addFromUri('//Alice//stash');
    for (const [i, name] of names.entries()) {
      const { keys, proofFor } = keySet(name);
      const { aura, grandpa } = keys;
      member.node.keystore.insert('aura', `//${name}`, aura);
      member.node.keystore.insert('gran', `//${name}`, grandpa);
      await api.tx.session!.setKeys!(keys, toHex(proofFor(asAccountId(stash.publicKey)))).signAndSend(stash);
      await until(`set ${i + 1} is in charge`, () => setId(member) === BigInt(i + 1), 40);
    }
  } finally {
    await api.disconnect();
  }
}

t.test('two newcomers, one after the other', { timeout: 115_000 }, async (test) => {
  const spec = specWithShortSessions();
  const homes = await directories(3);
  const members: Member[] = [];
  test.teardown(async () => {
    await Promise.allSettled(members.map((each) => each.stop()));
    await homes.remove();
  });
  const join = async (i: number, bootNodes: readonly string[]): Promise<Member> => {
    const authority = i === 0 ? '//Alice' : undefined;
    const member = await startMember({
      name: `node${i}`,
      spec,
      directory: homes.paths[i]!,
      authority,
      bootNodes,
      sync: 'warp',
    });
    members[i] = member;
    return member;
  };
  // The first one has nobody to leap to, and must not wait for anybody: it is begun with full sync.
  const first = await startMember({
    name: 'node0',
    spec,
    directory: homes.paths[0]!,
    authority: '//Alice',
    bootNodes: [],
  });
  members[0] = first;
  await rotate(first, ['Alice//1', 'Alice//2']);
  await until('the new set finalizes', () => info(first).finalized.number >= 12, 20);

  const follows = async (member: Member, name: string): Promise<void> => {
    await until(`${name} leaps`, () => info(member).finalized.number >= 12, 30);
    test.equal(setId(member), 2n, `${name} is in the right set`);
    const goal = info(first).finalized.number + 4;
    await until(`${name} follows`, () => info(member).finalized.number >= goal, 30);
    await until(
      `${name} has the past`,
      () => {
        const hash = member.node.client.blocks.hashOf(1);
        return hash !== undefined && member.node.client.blocks.body(hash) !== undefined;
      },
      30,
    );
    const seen = ({ node: { client } }: Member, number: number) => {
      const hash = client.blocks.hashOf(number)!;
      return [toHex(hash), ...(client.blocks.body(hash) ?? []).map(toHex)];
    };
    const numbers = Array.from({ length: goal + 1 }, (_, number) => number);
    test.same(
      numbers.map((number) => seen(member, number)),
      numbers.map((number) => seen(first, number)),
      `${name}: the same blocks`,
    );
    test.same(member.warnings, []);
  };
  let second = await join(1, [first.address]);
  await follows(second, 'the second');
  await second.stop();
  second = await join(1, [first.address]);
  const again = info(first).finalized.number + 2;
  await until('the second goes on after a restart', () => info(second).finalized.number >= again, 30);
  // From one that leapt itself: it serves the proofs that it was given.
  const third = await join(2, [second.address]);
  await follows(third, 'the third');
});
