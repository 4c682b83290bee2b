/** Staking as a wallet shows and uses it: @polkadot/api and its derived queries, unmodified, with a node that runs. */
import { ApiPromise, Keyring, WsProvider } from '@polkadot/api';
import { cryptoWaitReady } from '@polkadot/util-crypto';
import t from 'tap';
import { presetSpec } from '../../../node/chain-spec/built-in.ts';
import { startNode } from '../../../node/service.ts';
import { until } from '../../support/until.ts';

const OPEN = 10n ** 18n;
const [SESSION, SESSIONS_PER_ERA] = [3, 2];

async function start() {
  const stop = new AbortController();
  const warnings: string[] = [];
  const node = await startNode(
    {
      name: 'test',
      version: '0',
      spec: presetSpec('dev', {
        slotDurationMs: 400,
        sessionLength: SESSION,
        eras: { sessionsPerEra: SESSIONS_PER_ERA, bondingDuration: 3, slashDeferDuration: 1 },
      }),
      basePath: undefined,
      statePruning: 256,
      authority: '//Alice',
      rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
      log: (level, message) => {
        // Slots this short are missed on a busy machine.
        if ((level === 'warn' || level === 'error') && message !== 'a block took longer than its slot')
          warnings.push(message);
      },
    },
    stop.signal,
  );
  const close = async () => {
    stop.abort();
    await node.stopped;
  };
  return { node, warnings, close };
}

t.test('a wallet shows stakes, bonds, nominates and is paid', { timeout: 110_000 }, async (test) => {
  await cryptoWaitReady();
  const running = await start();
  const provider = new WsProvider(running.node.rpc.ws, false);
  await provider.connect();
  const api = await ApiPromise.create({ provider: provider as never, noInitWarn: true });
  test.teardown(async () => {
    await api.disconnect();
    await running.close();
  });
  const ring = new Keyring({ type: 'sr25519' });
  const [alice, bob, stash] = ['//Alice', '//Bob', '//Alice//stash'].map((uri) => ring.addFromUri(uri)) as [
    Pair,
    Pair,
    Pair,
  ];
  type Pair = ReturnType<typeof ring.addFromUri>;
  const { staking, balances, sudo, utility } = api.tx as Record<string, Record<string, (...args: unknown[]) => Call>>;
  type Call = ReturnType<typeof api.tx>;
  const send = (call: Call, by: Pair) =>
    new Promise<string[]>((resolve, reject) => {
      call
        .signAndSend(by, { nonce: -1 }, ({ status, events, dispatchError, isError }) => {
          const known = dispatchError?.isModule ? api.registry.findMetaError(dispatchError.asModule).name : '';
          if (isError || dispatchError) reject(new Error(`${known || dispatchError || status}`));
          else if (status.isFinalized) resolve(events.map(({ event }) => `${event.section}.${event.method}`));
        })
        .catch(reject);
    });
  const derive = api.derive.staking as unknown as Record<string, (...args: unknown[]) => Promise<never>>;
  // What derived queries return depends on the chain; a wallet reads them as text and numbers.
  // biome-ignore lint/suspicious/noExplicitAny: shapes of another package
  const ask = async (name: string, ...args: unknown[]): Promise<any> => derive[name]!(...args);
  const text = (value: unknown) => `${value}`;
  const activeEra = async () => Number(text((await ask('overview')).activeEra));
  const era = (index: number) => until(`era ${index}`, async () => (await activeEra()) >= index);

  const overview = await ask('overview');
  test.same(overview.validators.map(text), [stash.address]);
  test.same(overview.nextElected.map(text), [stash.address]);
  test.equal(text(overview.validatorCount), '1');
  const own = await ask('account', stash.address);
  test.equal(text(own.stakingLedger.active.toBigInt()), text(1_000_000n * OPEN));
  test.equal(text(own.controllerId), stash.address);
  test.equal(text(own.rewardDestination), 'Staked');
  test.equal(own.sessionIds.length, 2, 'the keys that it works with');
  const all = (await api.derive.balances.all(stash.address)) as unknown as { reservedBalance: { toBigInt(): bigint } };
  test.equal(all.reservedBalance.toBigInt(), 1_000_000n * OPEN);

  test.same(
    await send(
      utility!.batchAll!([staking!.bond!(500_000n * OPEN, 'Stash'), staking!.nominate!([stash.address])]),
      bob,
    ).then((names) => names.filter((name) => name.startsWith('staking'))),
    ['staking.Bonded'],
  );
  await test.rejects(send(staking!.bond!(OPEN, 'Stash'), bob), /AlreadyBonded/);
  const bobs = await ask('account', bob.address);
  test.same(bobs.nominators.map(text), [stash.address]);
  await era((await activeEra()) + 2);

  const elected = await ask('electedInfo');
  test.same(
    elected.info.map((each: { accountId: unknown }) => text(each.accountId)),
    [stash.address],
  );
  const { exposureMeta, exposurePaged } = (
    await ask('electedInfo', {
      withClaimedRewardsEras: true,
      withController: true,
      withExposure: true,
      withExposureMeta: true,
      withLedger: true,
      withPrefs: true,
    })
  ).info[0];
  test.equal(exposureMeta.unwrap().total.toBigInt(), 1_500_000n * OPEN);
  test.equal(text(exposurePaged.unwrap().others[0].who), bob.address);
  test.same((await ask('waitingInfo')).waiting, []);
  test.same((await ask('stashes')).map(text), [stash.address]);

  // Income of the stakers: paid to both by stake.
  const pot = text(api.consts.staking!.pot);
  const paidEra = await activeEra();
  await send(balances!.transferKeepAlive!(pot, 3_000n * OPEN), alice);
  const during = await activeEra();
  await era(during + 1);
  const points = await ask('erasPoints');
  test.ok(
    points.length > 0 &&
      points.every(({ eraPoints }: { eraPoints: { toNumber(): number } }) => eraPoints.toNumber() > 0),
  );
  test.ok((await ask('currentPoints')).total.toNumber() >= 0);
  const foretold = (await ask('stakerRewards', bob.address)) as {
    era: { toNumber(): number };
    validators: Record<string, { total: { toBigInt(): bigint } }>;
  }[];
  const rewarded = foretold.find((each) => (each.validators[stash.address]?.total.toBigInt() ?? 0n) > 0n)!;
  test.ok(rewarded.era.toNumber() >= paidEra);
  // The library leaves a validator's own stake out of paged exposures; what the era pays to all is right.
  test.equal(rewarded.validators[stash.address]!.total.toBigInt(), 3_000n * OPEN);
  const free = async () =>
    (
      (await api.query.system!.account!(bob.address)) as unknown as { data: { free: { toBigInt(): bigint } } }
    ).data.free.toBigInt();
  const before = await free();
  await send(staking!.payoutStakersByPage!(stash.address, rewarded.era.toNumber(), 0), alice);
  test.equal((await free()) - before, 1_000n * OPEN, 'a third of the stake, a third of the reward');
  await test.rejects(send(staking!.payoutStakers!(stash.address, rewarded.era.toNumber()), alice), /AlreadyClaimed/);
  const claimed = (await ask('query', stash.address, { withClaimedRewardsEras: true })).claimedRewardsEras.map(text);
  test.ok(claimed.includes(text(rewarded.era)));
  const exposure = await ask('ownExposure', stash.address, rewarded.era.toNumber());
  test.equal(exposure.exposureMeta.unwrap().own.toBigInt(), 1_000_000n * OPEN);

  // Out again: what unlocks is shown with the time that it takes, then as redeemable.
  await send(staking!.unbond!(200_000n * OPEN), bob);
  const leaving = await ask('account', bob.address);
  test.equal(leaving.unlocking[0].value.toBigInt(), 200_000n * OPEN);
  test.ok(leaving.unlocking[0].remainingEras.toNumber() >= 3);
  await send(sudo!.sudo!(staking!.setInflation!(10_000_000)), alice);
  await era((await activeEra()) + 4);
  test.equal((await ask('account', bob.address)).redeemable.toBigInt(), 200_000n * OPEN);
  test.ok((await send(staking!.withdrawUnbonded!(0), bob)).includes('staking.Withdrawn'));
  const rewards = (await ask('erasRewards')) as { eraReward: { toBigInt(): bigint } }[];
  test.ok((rewards.at(-1)?.eraReward.toBigInt() ?? 0n) > 0n, 'what is minted is shown');
  test.same(
    (await ask('stakerSlashes', stash.address)).filter(
      ({ total }: { total: { toBigInt(): bigint } }) => total.toBigInt() > 0n,
    ),
    [],
  );
  const later = await activeEra();
  for (const [name, ...args] of [
    ['validators'],
    ['nextElected'],
    ['keys', stash.address],
    ['erasExposure'],
    ['erasHistoric'],
    ['erasPrefs'],
    ['erasSlashes'],
    ['eraExposure', later],
    ['ownExposures', stash.address],
    ['ownSlashes', stash.address],
    ['stakerExposure', bob.address],
    ['stakerPoints', stash.address],
    ['stakerPrefs', stash.address],
    ['stakerRewardsMulti', [stash.address, bob.address]],
  ] as [string, ...unknown[]][]) {
    test.ok(await ask(name, ...args), `derive.staking.${name}`);
  }
  const info = (await api.derive.session.info()) as unknown as { sessionsPerEra: unknown };
  test.equal(text(info.sessionsPerEra), text(SESSIONS_PER_ERA));
  test.same(running.warnings, []);
});
