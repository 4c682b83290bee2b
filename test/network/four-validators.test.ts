/** Four validators over real sockets: they agree, one goes and comes back, a newcomer follows. */
import { Keyring } from '@polkadot/api';
import t from 'tap';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { until } from '../support/until.ts';
import { directories, type Member, startMember } from './nodes.ts';

const NAMES = ['Alice', 'Bob', 'Charlie', 'Dave'];
const finalizedOf = ({ node }: Member) => node.client.blocks.info().finalized.number;
const hashAt = ({ node }: Member, number: number) => {
  const hash = node.client.blocks.hashOf(number);
  return hash && toHex(hash);
};

t.test(
  'four validators finalize; one is stopped and returns; a fifth node syncs',
  { timeout: 120_000 },
  async (test) => {
    const spec = presetSpec('local', { slotDurationMs: 1_000 });
    const homes = await directories(5);
    const members: (Member | undefined)[] = [];
    test.teardown(async () => {
      await Promise.allSettled(members.map((each) => each?.stop()));
      await homes.remove();
    });
    const start = async (i: number): Promise<Member> => {
      const bootNodes = members.flatMap((each) => each?.address ?? []);
      const authority = i < 4 ? `//${NAMES[i]}` : undefined;
      const member = await startMember({ name: `node${i}`, spec, directory: homes.paths[i]!, authority, bootNodes });
      members[i] = member;
      return member;
    };
    const all = (): Member[] => members.filter((each) => each !== undefined);
    const agree = (upTo: number, from: readonly Member[]): void => {
      for (let number = 0; number <= upTo; number++) {
        test.equal(new Set(from.map((each) => hashAt(each, number))).size, 1, `block ${number} is the same everywhere`);
      }
    };

    for (let i = 0; i < 4; i++) await start(i);
    await until('everyone knows everyone', () => all().every(({ node }) => node.network.peers().length === 3), 30);
    await until('10 blocks are final', () => all().every((each) => finalizedOf(each) >= 10), 60);
    agree(10, all());
    test.ok(
      all().every(({ node }) => node.network.peers().every(({ roles }) => roles === 'AUTHORITY')),
      'roles are told',
    );

    await members[3]!.stop();
    members[3] = undefined;
    const left = finalizedOf(members[0]!);
    await until('three of four go on', () => all().every((each) => finalizedOf(each) >= left + 4), 40);

    const back = await start(3);
    await until('the returned one catches up', () => finalizedOf(back) >= finalizedOf(members[0]!) - 1, 40);
    await until('its blocks are taken again', () => all().every((each) => finalizedOf(each) >= left + 8), 40);

    const fifth = await start(4);
    const goal = finalizedOf(members[0]!) + 3;
    await until('the newcomer is level', () => finalizedOf(fifth) >= goal, 40);
    agree(goal, all());

    // A transaction given to the newcomer is made part of a block by others.
    const { extrinsic } = await transfer(fifth);
    const hash = await fifth.node.client.pool.submit(extrinsic, 'local');
    const holds = ({ node: { client } }: Member): boolean => {
      for (let number = client.blocks.info().finalized.number; number > goal - 3; number--) {
        const body = client.blocks.body(client.blocks.hashOf(number)!);
        if (body?.some((each) => toHex(each) === toHex(extrinsic))) return true;
      }
      return false;
    };
    await until('the transaction is final everywhere', () => all().every(holds), 40);
    test.equal(hash.length, 32);
    // A busy machine may be slow; nothing else may be worth a warning.
    const complaints = (each: Member) => each.warnings.filter((line) => !line.includes('longer than its slot'));
    for (const each of all()) test.same(complaints(each), [], 'nothing to complain about');
  },
);

async function transfer({ node }: Member): Promise<{ extrinsic: Uint8Array }> {
  const { ApiPromise, WsProvider } = await import('@polkadot/api');
  const api = await ApiPromise.create({ provider: new WsProvider(node.rpc.ws) as never, noInitWarn: true });
  try {
    const pair = new Keyring({ type: 'sr25519' }).addFromUri('//Eve');
    const call = api.tx.balances!.transferKeepAlive!(pair.address, 1n);
    const signed = await call.signAsync(pair, { nonce: -1 });
    return { extrinsic: signed.toU8a(true) };
  } finally {
    await api.disconnect();
  }
}
