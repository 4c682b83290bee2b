/** System: what of the chain's past stays in its state, and with which nonces accounts begin. */
import t from 'tap';
import { BLOCK_HASH_COUNT, blockHash, store } from '../../../runtime/pallets/standard/system.ts';
import { decode, encode, u32 } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, accountId, asHash, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { accountNamed, signedBy } from './signed.ts';
import { createWorld, genesisOf, make, OPEN, remark, to, transfer, type World } from './world.ts';

const GENESIS = asHash(new Uint8Array(32).fill(7));

t.test('hashes of blocks leave the state, that of the genesis block never', async (test) => {
  const world = await createWorld(genesisOf(), GENESIS);
  test.teardown(world.close);
  const height = BLOCK_HASH_COUNT + 4;
  world.next(height);
  test.same(blockHash(world.host, 0), GENESIS, 'transactions are signed for it, immortal ones were born by it');
  const kept = (number: number) => !Buffer.from(blockHash(world.host, number)).equals(ZERO_HASH);
  const oldest = height - BLOCK_HASH_COUNT;
  test.same([1, oldest - 1, oldest, height - 1].map(kept), [false, false, true, true]);
});

t.test('what an account signed before it was reaped is not good for the account that comes after it', async (test) => {
  const world = await createWorld(
    genesisOf({
      balances: ['Mallory', 'Victim'].map((name) => ({ account: accountNamed(name), amount: 100n * OPEN })),
    }),
    GENESIS,
  );
  test.teardown(world.close);
  const [mallory, victim] = [accountNamed('Mallory'), accountNamed('Victim')];
  /** Why it is refused; undefined where it is applied, whatever its call comes to. */
  const apply = (extrinsic: Uint8Array): string | undefined => {
    const applied = world.runtime.executive.applyExtrinsic(world.host, extrinsic);
    return applied.ok ? undefined : applied.error.value.type;
  };
  const asked = (of: World, who: AccountId): number =>
    decode(u32, of.runtime.call(of.host, 'AccountNonceApi_account_nonce', encode(accountId, who)));
  const pay = make('Balances', 'transfer_keep_alive', { dest: to(mallory), value: OPEN });
  const leave = make('Balances', 'transfer_all', { dest: to(mallory), keepAlive: false });

  test.equal(asked(world, victim), 0, 'accounts of the genesis begin with nought');
  const old: Uint8Array[] = [];
  const send = (call: ReturnType<typeof make>): void => {
    const extrinsic = signedBy(world, 'Victim', call, asked(world, victim));
    test.equal(apply(extrinsic), undefined);
    old.push(extrinsic);
  };
  let mallorys = 0;
  const revive = (): void => {
    test.equal(apply(signedBy(world, 'Mallory', transfer(victim, 20n * OPEN), mallorys++)), undefined);
  };
  const replayed = (): void => {
    const before = world.root();
    for (const extrinsic of old) test.match(apply(extrinsic) ?? '', /Stale|Payment/);
    test.equal(world.root(), before, 'nothing that was signed before is good again');
  };

  // Slowly: the block number is ahead of the nonce by itself.
  world.next(5);
  send(pay);
  send(leave);
  replayed();
  revive();
  test.equal(asked(world, victim), 5);
  replayed();
  test.equal([...store.ReapedNonces.entries(world.host)].length, 0, 'nothing had to be remembered');

  // Faster than there are blocks: how far it got is remembered, through life and death, within one block.
  for (let life = 0; life < 3; life++) {
    for (let i = 0; i < 12; i++) send(remark());
    send(leave);
    const reached = 5 + 13 * (life + 1);
    test.equal(asked(world, victim), reached, 'a wallet is told the nonce with which the account would begin');
    test.equal(store.ReapedNonces.get(world.host, victim), reached);
    replayed();
    revive();
    test.equal(asked(world, victim), reached);
    test.equal(store.ReapedNonces.get(world.host, victim), undefined, 'the account itself knows it');
    replayed();
  }
  send(leave);
  const reached = asked(world, victim);
  world.next(reached + 1);
  revive();
  test.equal(asked(world, victim), reached + 1, 'the block number has caught up');
  replayed();
  test.equal([...store.ReapedNoncesByBlock.keys(world.host)].length, 0);

  // Those that nobody revives are forgotten when the block number has passed them, a few at a time.
  const names = Array.from({ length: 9 }, (_, i) => `Passer${i}`);
  const passBy = (some: readonly string[]): void => {
    for (const name of some) {
      const who = accountNamed(name);
      world.dispatch(transfer(who, OPEN), mallory);
      for (const call of [remark(), leave])
        test.equal(apply(signedBy(world, name, call, asked(world, who))), undefined);
    }
  };
  passBy(names.slice(0, 6));
  test.equal([...store.ReapedNonces.entries(world.host)].length, 6);
  world.next(world.number() + 10);
  passBy(names.slice(6));
  test.equal([...store.ReapedNonces.entries(world.host)].length, 3, 'two go for each one that comes');
  test.equal([...store.ReapedNoncesByBlock.keys(world.host)].length, 3);
  // Its end finds whether the books are right.
  world.next();
});
