/** Validators by stake over real sockets: a newcomer is elected and takes a seat; the others hand it over. */
import { Keyring } from '@polkadot/api';
import t from 'tap';
import { changeIn } from '../../consensus/grandpa/authorities.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { until } from '../support/until.ts';
import {
  authors,
  blocksOf,
  chainOf,
  connect,
  finalized,
  newSessionKeys,
  SLOW,
  setId,
  startValidators,
  URIS,
} from './validators.ts';

const OPEN = 10n ** 18n;

t.test(
  'a newcomer sets its keys, stakes, and is a validator two sessions after its election',
  { timeout: 240_000 },
  async (test) => {
    const { members, close } = await startValidators([...URIS.slice(0, 3), undefined], 3, 1);
    const newcomer = members[3]!;
    const api = await connect(newcomer);
    test.teardown(async () => {
      await api.disconnect();
      await close();
    });
    await until('blocks are final', () => members.every((each) => finalized(each) >= 2), 90);
    const eve = new Keyring({ type: 'sr25519' }).addFromUri('//Eve');
    const { keys, proof } = await newSessionKeys(newcomer, eve.publicKey);
    const { staking, session, utility } = api.tx as Record<
      string,
      Record<string, (...args: unknown[]) => ReturnType<typeof api.tx>>
    >;
    const wanted = utility!.batchAll!([
      staking!.bond!(2_000_000n * OPEN, 'Staked'),
      session!.setKeys!(keys, proof),
      staking!.validate!({ commission: 0, blocked: false }),
    ]);
    await wanted.signAndSend(eve, { nonce: -1 });
    await until('a new set is in charge', () => members.every((each) => setId(each) >= 1), 150);
    const change = chainOf(members[0]!).authoritySet().setChanges[0]!;
    test.equal(change % 3, 0, 'with the first block of a session');

    const header = blocksOf(members[0]!).header(blocksOf(members[0]!).hashOf(change)!)!;
    const next = changeIn(header)!;
    test.equal(next.length, 3, 'three seats, and the newcomer has one');
    const [auraKey, grandpaKey] = [`0x${keys.slice(2, 66)}`, `0x${keys.slice(66)}`];
    test.ok(next.some(([key]) => toHex(key) === grandpaKey));
    for (const member of members) {
      const proof = blocksOf(member).justifications(blocksOf(member).hashOf(change)!);
      test.equal(proof?.length, 1, 'the block that changes the set has its proof everywhere');
    }
    await until('the new voters finalize', () => members.every((each) => finalized(each) >= change + 5), 90);
    const seen = authors(members[0]!, change + 1);
    test.ok(seen.has(auraKey), 'the newcomer authors');
    test.equal(seen.size, 3);
    for (const { warnings } of members)
      test.same(
        warnings.filter((each) => !SLOW.some((slow) => each.startsWith(slow))),
        [],
        'nothing to complain about',
      );
  },
);
