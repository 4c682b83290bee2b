/** Who is believed to have a worker: the node that the worker signed for, and nobody else. */
import { generateKeyPair } from '@libp2p/crypto/keys';
import { peerIdFromPrivateKey } from '@libp2p/peer-id';
import t from 'tap';
import type { SignedAttachment } from '../../node/ports/inference.ts';
import { Adverts } from '../../p2p/ledger/adverts.ts';
import { createLimits } from '../../p2p/limits/limits.ts';
import { advert, signedAdvert } from '../../p2p/protocols/inference.ts';
import type { Room, RoomOptions } from '../../p2p/wire/gossip.ts';
import type { Wire } from '../../p2p/wire/wire.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import { concatBytes, utf8 } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { asAccountId, asHash } from '../../runtime/primitives/types.ts';

const chain = asHash(new Uint8Array(32).fill(1));
const account = (n: number) => asAccountId(new Uint8Array(32).fill(n));
const NOW = 1_000_000_000;

async function node() {
  const key = await generateKeyPair('Ed25519');
  return { key, raw: key.publicKey.raw, peer: peerIdFromPrivateKey(key).toString() };
}
type TestNode = Awaited<ReturnType<typeof node>>;

t.test('adverts', async (test) => {
  let now = NOW;
  let options: RoomOptions | undefined;
  const own = await node();
  const clock = { now: () => now, monotonic: () => now, after: () => () => {} };
  const room: Room = { publish() {}, members: () => new Set(), leave() {} };
  const wire = {
    join: (wanted: RoomOptions) => {
      options = wanted;
      return room;
    },
    publicKey: own.raw,
    clock,
    limits: createLimits({ clock, byAddress: false, isNamed: () => false }),
    log: () => {},
  } as unknown as Wire;
  let lookups = 0;
  let signatures = 0;
  const adverts = new Adverts(wire, {
    genesisHash: () => chain,
    lines: () => [],
    served: (adapter, worker, waiting) => {
      lookups++;
      return adapter < 10 ? { adapter: adapter as AdapterId, name: `a${adapter}`, worker, waiting } : undefined;
    },
    // Workers 1 to 99 are bonded, with ten adapters each.
    obligationsOf: (worker) => (worker[0]! < 100 ? 10 : undefined),
    // The test's workers sign with their own number.
    isAttachment: ({ payload, signature }) => {
      signatures++;
      return signature.value[0] === payload.worker[0];
    },
  });

  const attached = (worker: number, to: TestNode, at = now, by = worker): SignedAttachment => ({
    payload: { chain, node: to.raw, challenge: new Uint8Array(32), worker: account(worker), at: BigInt(at) },
    signature: { type: 'Sr25519', value: new Uint8Array(64).fill(by) },
  });
  const tell = async (
    from: TestNode,
    workers: readonly { attachment: SignedAttachment; adapters: number[] }[],
    by: TestNode = from,
  ) => {
    now++;
    const value = {
      chain,
      node: from.raw,
      at: BigInt(now),
      addresses: [],
      workers: workers.map((each) => ({ ...each, waiting: 0 })),
    };
    const signature = await by.key.sign(concatBytes(utf8('openledger/advert/2'), encode(advert, value)));
    return options!.validate('neighbour', encode(signedAdvert, { advert: value, signature }));
  };
  const routes = (worker: number): string[] => adverts.nodesOf(account(worker)).map(({ peer }) => peer);

  const [home, thief] = await Promise.all([node(), node()]);
  test.match(await tell(home, [{ attachment: attached(7, home), adapters: [1, 2] }]), { type: 'accept' });
  test.same(routes(7), [home.peer]);
  test.match(
    await tell(thief, [{ attachment: attached(7, home), adapters: [1] }]),
    { type: 'reject' },
    'the worker’s word for another node',
  );
  test.match(
    await tell(thief, [{ attachment: attached(7, thief, now, 3), adapters: [1] }]),
    { type: 'reject', cost: 1_000 },
    'a word that the worker did not give',
  );
  test.match(
    await tell(home, [{ attachment: attached(8, home), adapters: [1] }], thief),
    { type: 'reject' },
    'another’s advert',
  );
  test.same(routes(7), [home.peer], 'nobody else is asked');

  const before = signatures;
  test.match(
    await tell(thief, [{ attachment: attached(200, thief), adapters: [1] }]),
    { type: 'ignore', cost: 10 },
    'no worker',
  );
  const greedy = { attachment: attached(9, thief), adapters: Array.from({ length: 11 }, (_, i) => i) };
  test.match(await tell(thief, [greedy]), { type: 'ignore', cost: 10 }, 'more adapters than its bond stands for');
  lookups = 0;
  const idle = Array.from({ length: 60 }, (_, i) => ({
    attachment: attached(i + 1, thief),
    adapters: [50, 51, 52, 53],
  }));
  test.match(await tell(thief, idle), { type: 'ignore', cost: 10 }, 'nothing that is served');
  test.ok(lookups <= 60 * 8, `${lookups} looked up`);
  const old = attached(7, thief, now - 31 * 60_000);
  test.match(await tell(thief, [{ attachment: old, adapters: [1] }]), { type: 'ignore' }, 'an old word');
  test.equal(signatures, before, 'none of them costs a signature');

  for (let i = 0; i < 5; i++) await tell(home, [{ attachment: attached(7, home, NOW), adapters: [1, 2] }]);
  test.ok(signatures <= before + 1, 'a signature is checked once');

  // The worker moves: whoever it signed for last comes first.
  const next = await node();
  test.match(await tell(next, [{ attachment: attached(7, next), adapters: [2] }]), { type: 'accept' });
  test.same(routes(7), [next.peer, home.peer]);
  test.match(await tell(next, []), { type: 'accept' }, 'it says that it has none any more');
  test.same(routes(7), [home.peer]);
  test.same(
    adverts.models().map(({ adapter }) => adapter),
    [1, 2],
  );
  now += 36_000;
  test.same(routes(7), [], 'unheard of for long');
});
