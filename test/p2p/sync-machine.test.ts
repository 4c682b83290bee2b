/** Full sync as a pure machine: it gets there whatever most peers do, asks nobody too much, and blames only the guilty. */
import t from 'tap';
import { uniforms } from '../../gpu-worker/attribution/seeded.ts';
import { type Behaviour, SyncWorld, type WorldOptions } from './sync-world.ts';

const BAD: readonly Behaviour[] = ['slow', 'boasting', 'silent', 'pruned', 'forking', 'garbling', 'inventing'];

function optionsOf(seed: number): WorldOptions {
  const next = uniforms(BigInt(seed) * 7919n);
  const others = Array.from({ length: Math.floor(next() * 7) }, () => BAD[Math.floor(next() * BAD.length)]!);
  const honest = new Array<Behaviour>(1 + Math.floor(next() * 3)).fill('honest');
  const blocks = 20 + Math.floor(next() * next() * 3_000);
  return {
    seed: BigInt(seed),
    behaviours: [...others, ...honest],
    blocks,
    own: next() < 0.5 ? 0 : Math.floor(next() * blocks),
    churn: next() < 0.5,
    growth: next() < 0.7,
  };
}

t.test('whoever the peers are, one honest one is enough', { timeout: 100_000 }, async (test) => {
  const runs = Number(process.env.RUNS ?? 200);
  const first = Number(process.env.SEED ?? 1);
  let slowest = 0;
  for (let seed = first; seed < first + runs; seed++) {
    const options = optionsOf(seed);
    const world = new SyncWorld(options);
    // A fork that can be executed and is longer is rightly followed.
    const there = (): boolean => world.now > 4_000 && world.chain.best.ref.number >= world.head.ref.number;
    const arrived = world.run(900_000, there);
    slowest = Math.max(slowest, world.now);
    if (!arrived) {
      const peers = world.peers.map(({ behaviour, cost, connected, asked }) => ({ behaviour, cost, connected, asked }));
      const state = { at: world.chain.best.ref.number, of: world.head.ref.number, fault: world.fault, peers };
      test.fail(`seed ${seed}: ${JSON.stringify(state)}`, { options: { ...options, seed } });
    }
    if (world.mostOutstanding > world.peers.length)
      test.fail(`seed ${seed}: ${world.mostOutstanding} requests at once`);
  }
  test.pass(`${runs} runs, the slowest in ${Math.round(slowest / 1_000)} virtual seconds`);
});

t.test('several peers are asked at once, and a head start is used', async (test) => {
  const world = new SyncWorld({
    seed: 3n,
    behaviours: ['honest', 'honest', 'honest', 'honest'],
    blocks: 4_000,
    own: 1_500,
    churn: false,
    growth: false,
  });
  test.ok(world.run(600_000, () => world.chain.best === world.head));
  test.equal(world.chain.imported, 2_500, 'nothing is imported twice');
  test.equal(world.mostOutstanding, 4);
  for (const peer of world.peers) test.ok(peer.asked >= 3, `${peer.id} was asked ${peer.asked} times`);
  test.same(
    world.peers.map(({ cost }) => cost),
    [0, 0, 0, 0],
  );
});

t.test('whoever makes blocks up or garbles answers is banned or left', async (test) => {
  for (const behaviour of ['inventing', 'garbling'] as const) {
    const world = new SyncWorld({
      seed: 11n,
      behaviours: [behaviour, 'honest', 'honest'],
      blocks: 1_000,
      own: 0,
      churn: false,
      growth: true,
    });
    const out = (): boolean => world.peers[0]!.cost >= 1_000 || world.peers[0]!.dropped;
    test.ok(world.run(600_000, out), `a peer that is ${behaviour} has paid ${world.peers[0]!.cost}`);
    test.ok(world.run(600_000, () => world.chain.best === world.head));
  }
});

t.test('a chain that contradicts finality is left', async (test) => {
  const world = new SyncWorld({
    seed: 5n,
    behaviours: ['forking'],
    blocks: 400,
    own: 200,
    churn: false,
    growth: false,
  });
  const [peer] = world.peers;
  // It forked off above; now what it left out becomes final.
  world.chain.finalized = world.chain.best;
  const { makeBlock, makeChain } = await import('./sync-world.ts');
  let root = peer!.head;
  while (root.parent !== undefined) root = root.parent;
  peer!.head = makeChain(makeBlock(root), 500);
  world.run(60_000, () => peer!.dropped);
  test.ok(peer!.dropped);
  test.ok(peer!.cost < 1_000, `it may have begun alone, and is not banned: it paid ${peer!.cost}`);
});

t.test('heights that nobody can show keep a node from nothing', async (test) => {
  for (const behaviour of ['boasting', 'silent'] as const) {
    for (const fresh of [true, false]) {
      const behaviours = [behaviour, behaviour, behaviour, 'honest'] as const;
      const world = new SyncWorld({ seed: 17n, behaviours, blocks: 300, own: 300, churn: false, growth: fresh });
      // Where blocks come in every slot, no chain can be thousands above; where all had stood still, one could.
      const began = world.chain.best.ref.number;
      let syncing = 0;
      for (let second = 0; second < 1_200; second++) {
        if (fresh) world.chain.limit = began + Math.floor(second / 3) + 10;
        world.boast();
        world.run(1_000, () => false);
        if (world.machine.isMajorSyncing()) syncing++;
      }
      const most = fresh ? 0 : 32;
      test.ok(syncing <= most, `a ${behaviour} peer: ${syncing} s of 1200 on a ${fresh ? 'fresh' : 'stale'} head`);
      if (fresh) test.ok(world.head.ref.number - world.chain.best.ref.number <= 2, 'the node follows its honest peer');
      test.equal(world.peers[3]!.dropped, false);
    }
  }
});

t.test('a node that is behind says so for as long as it comes nearer', async (test) => {
  const world = new SyncWorld({
    seed: 19n,
    behaviours: ['silent', 'honest'],
    blocks: 3_000,
    own: 0,
    churn: false,
    growth: false,
  });
  test.notOk(world.machine.isMajorSyncing(), 'nobody is there yet');
  let notSyncing = 0;
  const done = (): boolean => world.chain.best.ref.number > 3_000 - 17;
  world.run(2_500, done);
  while (!done() && world.now < 600_000) {
    if (!world.machine.isMajorSyncing()) notSyncing++;
    world.run(100, done);
  }
  test.ok(done(), 'a peer that never answers is passed by');
  test.equal(notSyncing, 0);
  world.run(60_000, () => false);
  test.notOk(world.machine.isMajorSyncing(), 'and it is over when it is there');
});
