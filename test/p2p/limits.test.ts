/** What bounds strangers: allowances, places, bytes held, work by turns, connections that are not read, and transfers that stand still. */
import type { MultiaddrConnection } from '@libp2p/interface';
import { multiaddr } from '@multiformats/multiaddr';
import t from 'tap';
import { isPublic, rangeOf } from '../../p2p/host/addresses.ts';
import { PeerLedger } from '../../p2p/host/peer-scores.ts';
import { Budget, RateLimit } from '../../p2p/limits/budget.ts';
import { FairGate } from '../../p2p/limits/fair-gate.ts';
import { HeldBytes } from '../../p2p/limits/held-bytes.ts';
import { Origins } from '../../p2p/limits/origins.ts';
import { Places } from '../../p2p/limits/places.ts';
import { Throttle } from '../../p2p/limits/throttle.ts';
import { Workbench } from '../../p2p/limits/workbench.ts';
import { Pace } from '../../p2p/wire/pace.ts';

/** A clock that the test sets. */
function clockOf() {
  let now = 0;
  const due: { at: number; run: () => void }[] = [];
  return {
    now: () => now,
    monotonic: () => now,
    after: (ms: number, run: () => void) => {
      const entry = { at: now + ms, run };
      due.push(entry);
      return () => {
        const at = due.indexOf(entry);
        if (at >= 0) due.splice(at, 1);
      };
    },
    wait: (ms: number) => {
      const end = now + ms;
      for (;;) {
        const next = due.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
        if (next === undefined) break;
        due.splice(due.indexOf(next), 1);
        now = Math.max(now, next.at);
        next.run();
      }
      now = end;
    },
  };
}

/** `a1` and `a2` are of group `a`. */
const groupOf = (peer: string): string => peer[0]!;
const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
};

t.test('allowances', async (test) => {
  const { monotonic, wait } = clockOf();
  const limit = new RateLimit(monotonic, 10, 20);
  test.equal(limit.take(20), true);
  test.equal(limit.take(), false);
  limit.owe(30);
  test.equal(limit.waitMs(), 3_000, 'debts are paid off first');
  limit.owe(1_000_000);
  test.equal(limit.waitMs(), 4_000, 'and are no longer than so much');

  const allowance = (perSecond: number) => ({ perSecond, burst: perSecond });
  const budget = new Budget(monotonic, groupOf, { peer: allowance(10), group: allowance(30), all: allowance(60) });
  test.equal(budget.take('a1', 10), 'taken');
  test.equal(budget.take('a1'), 'peer', 'a peer has its own');
  const crowd = Array.from({ length: 100 }, (_, i) => budget.take(`a${i + 2}`, 10));
  test.equal(crowd.filter((each) => each === 'taken').length, 2, 'a hundred identities have what their group has');
  test.equal(crowd.at(-1), 'others', 'and are not to blame for each other');
  for (const group of 'bc') for (let i = 0; i < 100; i++) budget.take(`${group}${i}`, 10);
  test.equal(budget.take('d1', 10), 'taken', 'who was modest is served though all together were not');
  wait(1_000);
  test.equal(budget.take('a1', 10), 'taken');
});

t.test('origins', async (test) => {
  let now = 0;
  const isNamed = (peer: string): boolean => peer === 'boot';
  const house = new Origins({ byAddress: false, isNamed, now: () => now });
  test.equal(house.groupOf('one'), house.groupOf('two'), 'strangers of one house share');
  test.equal(house.groupOf('boot'), 'boot');
  for (let i = 0; i < 100; i++) house.wasUseful('one');
  test.equal(house.groupOf('one'), house.groupOf('two'), 'a hundred good things at once prove nothing');
  for (let i = 0; i < 10; i++) {
    now += 1_000;
    house.wasUseful('one');
  }
  test.equal(house.groupOf('one'), 'one', 'use over time does');
  house.didHarm('one');
  test.equal(house.groupOf('one'), house.groupOf('two'));
  const live = new Origins({ byAddress: true, isNamed, now: () => now });
  live.connected('one', multiaddr('/ip4/5.6.7.8/tcp/1'));
  live.connected('two', multiaddr('/ip4/5.6.7.9/tcp/1'));
  live.connected('three', multiaddr('/ip4/5.6.8.9/tcp/1'));
  test.equal(live.groupOf('one'), live.groupOf('two'));
  test.not(live.groupOf('one'), live.groupOf('three'));
});

t.test('addresses', async (test) => {
  const there = ['/ip4/8.8.8.8/tcp/1', '/ip6/2606:4700::1111/tcp/1/ws'];
  const here = ['/ip4/127.0.0.1/tcp/1', '/ip4/10.1.2.3/tcp/1', '/ip4/169.254.169.254/tcp/80', '/ip6/::1/tcp/1']
    .concat([
      '/ip6/0:0:0:0:0:0:0:1/tcp/1',
      '/ip6/::ffff:127.0.0.1/tcp/1',
      '/ip6/fe80::1/tcp/1',
      '/ip6/2002:7f00:1::/tcp/1',
    ])
    .concat(['/dns4/localhost/tcp/1', '/dns4/example.org/tcp/1', '/ip4/8.8.8.8/udp/1', '/ip4/224.0.0.1/tcp/1']);
  test.same(
    there.map((each) => isPublic(multiaddr(each))),
    there.map(() => true),
  );
  test.same(
    here.filter((each) => isPublic(multiaddr(each))),
    [],
  );
  test.equal(rangeOf(multiaddr('/ip6/::ffff:1.2.3.4/tcp/1')), '1.2.3');
});

t.test('a range pays for its identities', async (test) => {
  const { monotonic, wait } = clockOf();
  const ledger = new PeerLedger(monotonic, { rangeOf: (peer) => (peer === 'named' ? undefined : 'range') });
  let identities = 0;
  while (!ledger.isRangeBanned('range')) test.equal(ledger.charge(`peer ${identities++}`, 1_000), true);
  test.equal(identities, 4);
  test.equal(ledger.charge('named', 999), false);
  wait(10 * 60_000 + 1);
  test.equal(ledger.isRangeBanned('range'), false);
});

t.test('places', async (test) => {
  const places = new Places({ all: 4, peer: 3 }, groupOf);
  const gone: string[] = [];
  const take = (peer: string) => places.take(peer, () => gone.push(peer));
  const first = take('a1')!;
  take('a1');
  take('a1');
  test.equal(take('a1'), undefined, 'a peer has so many');
  take('a2');
  test.ok(take('b1'), 'a group without any gets one of the group that has all');
  test.same(gone, ['a1'], 'of the peer that has the most');
  first();
  test.ok(take('b2'));
  test.same(gone, ['a1', 'a1']);
  test.equal(take('b3'), undefined, 'a group that has as many gets none');
  test.equal(places.taken, 4);
});

t.test('bytes held', async (test) => {
  const held = new HeldBytes({ peer: 100, all: 250 });
  const dropped: string[] = [];
  const open = (peer: string) => held.open(peer, () => dropped.push(peer));
  const a = open('a');
  test.ok(a.set(60));
  test.notOk(open('a').set(41), 'a peer holds so much on all its streams');
  test.same(dropped, ['a']);
  test.equal(held.heldOf('a'), 60);
  const [b, c] = [open('b'), open('c')];
  test.ok(b.set(100));
  test.ok(c.set(100));
  test.same(dropped, ['a', 'a'], 'what has lain the longest goes first');
  test.notOk(a.set(1), 'and is held no more');
  b.release();
  c.set(0);
  test.equal(held.bytes, 0);
});

t.test('work by turns', async (test) => {
  const clock = clockOf();
  const spent: string[] = [];
  const bench = new Workbench({
    clock,
    groupOf,
    perSecond: 250,
    burst: 5,
    waiting: { peer: 4, all: 6 },
    spent: (peer) => spent.push(peer),
  });
  const work = (ms: number) => () => clock.wait(ms);
  const refused: string[] = [];
  const ask = (peer: string, ms: number) =>
    bench.do(peer, work(ms)).catch(({ code }) => refused.push(`${peer} ${code}`));
  for (let i = 0; i < 6; i++) void ask('a1', 50);
  for (let i = 0; i < 3; i++) void ask('a2', 50);
  await turns(1);
  test.same(refused, ['a1 BUSY', 'a1 BUSY', 'a2 BUSY'], 'refused before anything is done');
  void ask('b1', 1);
  void ask('b2', 1);
  await turns(1);
  test.equal(refused.length, 4, 'the group with the most makes room for another');
  test.same(spent, ['a1'], 'one piece, then rest');
  await turns(20);
  test.same(spent, ['a1'], 'however often others had their turn');
  clock.wait(179);
  await turns(20);
  test.equal(spent.length, 1);
  clock.wait(20);
  await turns(20);
  test.same(spent.slice(0, 2), ['a1', 'b1'], 'whoever has had the least comes next');
  await test.rejects(
    (async () => {
      const failing = bench.do('c1', () => {
        throw new Error('no');
      });
      failing.catch(() => {});
      for (let i = 0; i < 50; i++) {
        clock.wait(300);
        await turns(2);
      }
      return failing;
    })(),
    { message: 'no' },
  );
});

t.test('a gate that lets groups through by turns', async (test) => {
  const gate = new FairGate({ open: 1, waiting: { peer: 3, all: 4 } }, groupOf);
  const order: string[] = [];
  const open: (() => void)[] = [];
  const enter = (peer: string) =>
    gate.do(peer, () => {
      order.push(peer);
      return new Promise<void>((resolve) => open.push(resolve));
    });
  const all = ['a1', 'a1', 'a1', 'a1'].map(enter);
  await test.rejects(enter('a1'), { code: 'BUSY' }, 'one peer');
  all.push(enter('a2'));
  await test.rejects(enter('a3'), { code: 'BUSY' }, 'a group that waits already');
  all.push(enter('b1'));
  for (let i = 0; i < 6; i++) {
    open[i]!();
    await turns(1);
  }
  await Promise.all(all);
  test.same(order, ['a1', 'a1', 'b1', 'a1', 'a1', 'a2']);
  test.same(gate.load, { open: 0, waiting: 0 });
});

t.test('connections are read no faster than they may cost', async (test) => {
  const clock = clockOf();
  const allowance = { perSecond: 100, burst: 100 };
  const time = new Budget(clock.monotonic, groupOf, { peer: allowance, group: allowance, all: allowance });
  const throttle = new Throttle({ clock, time });
  class Line extends EventTarget {
    status = 'open';
    reading = true;
    writableNeedsDrain = false;
    pause(): void {
      this.reading = false;
    }
    resume(): void {
      this.reading = true;
    }
    abort(): void {
      this.status = 'aborted';
    }
    come(bytes: number): void {
      this.dispatchEvent(Object.assign(new Event('message'), { data: new Uint8Array(bytes) }));
    }
  }
  const lines = [new Line(), new Line()];
  for (const line of lines) throttle.watch('a1', line as unknown as MultiaddrConnection);
  throttle.spent('a1', 90);
  test.same(
    lines.map(({ reading }) => reading),
    [true, true],
  );
  throttle.spent('a1', 60);
  test.same(
    lines.map(({ reading }) => reading),
    [false, false],
    'all its connections',
  );
  test.equal(throttle.paused, 2);
  clock.wait(400);
  test.equal(throttle.paused, 2);
  clock.wait(200);
  test.equal(throttle.paused, 0);
  test.same(
    lines.map(({ reading }) => reading),
    [true, true],
  );

  // A peer that sends and does not read.
  const deaf = new Line();
  throttle.watch('b1', deaf as unknown as MultiaddrConnection);
  deaf.writableNeedsDrain = true;
  for (let i = 0; i < 17; i++) deaf.come(65_536);
  test.equal(deaf.reading, false, 'it is read in small pieces');
  clock.wait(11_000);
  deaf.come(65_536);
  test.equal(deaf.status, 'aborted', 'and not for ever');
});

t.test('the least pace', async (test) => {
  const clock = clockOf();
  const drip = new Pace(clock, { graceMs: 8_000, bytesPerSecond: 1_000 });
  for (let i = 0; i < 7; i++) {
    clock.wait(1_000);
    drip.moved(1);
  }
  test.notOk(drip.signal.aborted);
  clock.wait(2_000);
  test.ok(drip.signal.aborted, 'a byte now and then is nothing');
  test.match(drip.signal.reason, { code: 'TIMEOUT' });
  const steady = new Pace(clock, { graceMs: 8_000, bytesPerSecond: 1_000 });
  for (let i = 0; i < 60; i++) {
    clock.wait(1_000);
    steady.moved(1_000);
  }
  test.notOk(steady.signal.aborted);
  const hasty = new Pace(clock, { graceMs: 8_000, bytesPerSecond: 1_000 });
  hasty.moved(10_000_000);
  clock.wait(8_001);
  test.ok(hasty.signal.aborted, 'haste buys no rest');
  steady.end();
});
