/** What hostile transactions may cost: calls, bytes, events, levels; what is refused, and after how little work. */
import t, { type Test } from 'tap';
import { signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import { exceeds, subWeight } from '../../../runtime/framework/dispatch.ts';
import { call, event, pallet } from '../../../runtime/framework/pallet.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { HostFault } from '../../../runtime/host.ts';
import * as multisig from '../../../runtime/pallets/standard/multisig.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { concatBytes } from '../../../runtime/primitives/bytes.ts';
import { bytes, decode, encode, u32 } from '../../../runtime/primitives/scale/codec.ts';
import { asHash, multiSignature } from '../../../runtime/primitives/types.ts';
import { chainOf } from '../framework/chain.ts';
import { createWorld, genesisOf, make, OPEN, person, to, type World } from '../pallets/world.ts';
import { accountOf, signedBy } from './signing.ts';

const GENESIS = asHash(new Uint8Array(32).fill(7));
const nothing = make('System', 'remark', { remark: new Uint8Array() });
const batch = (calls: readonly RuntimeCall[]) => make('Utility', 'batch', { calls });
const nothings = (count: number) => Array.from({ length: count }, () => nothing);

async function world(test: Test, more: object = {}): Promise<World> {
  const of = await createWorld(
    genesisOf({
      balances: ['Alice', 'Bob'].map((name) => ({ account: accountOf(name), amount: 1_000_000n * OPEN })),
      ...more,
    }),
    GENESIS,
  );
  test.teardown(of.close);
  return of;
}

t.test('a block of more events than V8 takes as arguments is ended, and read back', async (test) => {
  const Told = event(0, { number: u32 }, 'Told.');
  const chain = await chainOf([pallet({ name: 'Teller', index: 30, events: { Told } })]);
  const { events } = chain.block((env) => {
    for (let number = 0; number < 150_000; number++) {
      if (number % 10_000 === 0) env.beginEvents();
      env.emit(Told, { number });
    }
  });
  test.equal(events.length, 150_000);
  test.same(events.at(-1), { name: 'Teller.Told', value: { number: 149_999 } });
  // The largest batch that there can be.
  const of = await world(test);
  const applied = of.runtime.executive.applyExtrinsic(of.host, signedBy(of, 'Alice', batch(nothings(4_096))));
  test.match(applied, { ok: true, outcome: { ok: true } });
  of.finish();
  test.equal(of.events().filter(({ name }) => name === 'Utility.ItemCompleted').length, 4_096);
});

t.test('more calls, levels or list items than an extrinsic may hold', async (test) => {
  const of = await world(test);
  const { executive } = of.runtime;
  const refused = (what: string, of_: RuntimeCall) => {
    const tx = signedBy(of, 'Alice', of_);
    test.match(
      executive.validateNext(of.host, 'External', tx),
      { ok: false, error: { value: { type: 'Call' } } },
      what,
    );
    test.match(executive.applyExtrinsic(of.host, tx), { ok: false, error: { value: { type: 'Call' } } }, what);
  };
  refused('a call too many', batch(nothings(4_097)));
  refused('batches in batches', batch(Array.from({ length: 12 }, () => batch(nothings(400)))));
  let deep = nothing;
  for (let i = 0; i < 33; i++) deep = batch([deep]);
  refused('deep', deep);
  refused('a list', make('System', 'kill_storage', { keys: Array.from({ length: 70_000 }, () => new Uint8Array()) }));
});

t.test('a refused transaction costs next to nothing: nothing is decoded, hashed or checked', async (test) => {
  const of = await world(test);
  const { executive } = of.runtime;
  const big = make('System', 'remark', { remark: new Uint8Array(3_600_000) });
  let decoded = 0;
  let hashed = 0;
  let verified = 0;
  const decodeCall = executive.extrinsics.decodeCall.bind(executive.extrinsics);
  executive.extrinsics.decodeCall = (head) => {
    decoded++;
    return decodeCall(head);
  };
  const host = {
    ...of.host,
    blake2_256: (data: Uint8Array) => {
      hashed += data.length;
      return of.host.blake2_256(data);
    },
    verifySr25519: (...args: Parameters<typeof of.host.verifySr25519>) => {
      verified++;
      return of.host.verifySr25519(...args);
    },
  };
  system.incNonce(of.host, accountOf('Bob'));
  const cases: [string, Uint8Array, string][] = [
    ['a key without an account', signedBy(of, 'Nobody', big, { forge: true, nonce: 0 }), 'Payment'],
    ['an old nonce', signedBy(of, 'Bob', big, { forge: true, nonce: 0 }), 'Stale'],
    ['a tip that it does not have', signedBy(of, 'Alice', big, { forge: true, tip: 10n ** 25n }), 'Payment'],
    [
      'more than a block holds',
      concatBytes(signedBy(of, 'Alice', nothing), new Uint8Array(5 << 20)),
      'ExhaustsResources',
    ],
    ['a bare one of a stranger', concatBytes(Uint8Array.of(4), encode(of.assembly.call, big)), 'Call'],
    ['no format at all', new Uint8Array(3_000_000).fill(0xee), 'Call'],
    ['general', concatBytes(Uint8Array.of(0x45, 0, 0, 0, 0, 0), encode(of.assembly.call, big)), 'BadSigner'],
  ];
  for (const [what, tx, reason] of cases) {
    [decoded, hashed, verified] = [0, 0, 0];
    test.match(executive.validateNext(host, 'External', tx), { ok: false, error: { value: { type: reason } } }, what);
    test.equal(executive.signatureCheck(host, tx), undefined, what);
    test.same([decoded, verified], [0, 0], what);
    test.ok(hashed < 1_000, what);
  }
  // One that may be good is hashed once for its signature, and decoded for its validity only.
  const good = signedBy(of, 'Alice', big);
  [decoded, hashed] = [0, 0];
  test.ok(executive.signatureCheck(host, good));
  test.same([decoded, hashed < 3_700_000], [0, true]);
});

t.test('what an extrinsic throws is its own failure; faults of the machine are not', async (test) => {
  const Told = event(0, { data: bytes() }, 'Told.');
  const thrown: Record<string, () => void> = {
    type() {
      (undefined as unknown as { x: () => void }).x();
    },
    stack() {
      const again = (): number => again() + 1;
      again();
    },
    range() {
      encode(bytes(1), new Uint8Array(2));
    },
    host() {
      throw new HostFault('the disk is gone');
    },
  };
  const spec = pallet({
    name: 'Bad',
    index: 30,
    events: { Told },
    calls: {
      fail: call({
        index: 0,
        args: { how: bytes() },
        weight: { refTime: 1n, proofSize: 0n },
        docs: 'Throws.',
        run: (_, { how }) => thrown[new TextDecoder().decode(how)]?.(),
      }),
      tell: call({
        index: 1,
        args: {},
        weight: { refTime: 1n, proofSize: 0n },
        docs: 'Emits more events than anything may.',
        run({ emit }) {
          for (let i = 0; i < 30_000; i++) emit(Told, { data: new Uint8Array(10) });
        },
      }),
      shout: call({
        index: 2,
        args: {},
        weight: { refTime: 1n, proofSize: 0n },
        docs: 'Emits more bytes than anything may.',
        run({ emit }) {
          for (let i = 0; i < 30; i++) emit(Told, { data: new Uint8Array(1 << 18) });
        },
      }),
    },
  });
  const chain = await chainOf([spec]);
  const { executive } = chain;
  const tx = (of: RuntimeCall): Uint8Array => {
    const { publicKey, ...key } = derive('//Alice', 'sr25519');
    const body = encode(chain.assembly.call, of);
    const payload = body.length > 256 ? chain.host.blake2_256(body) : body;
    const signature = signWith({ publicKey, ...key }, payload, chain.host);
    return concatBytes(
      Uint8Array.of(0x84, 0),
      publicKey,
      encode(multiSignature, { type: 'Sr25519', value: signature }),
      body,
    );
  };
  const bad = (how: string): RuntimeCall => make('Bad', 'fail', { how: new TextEncoder().encode(how) });
  chain.block(() => {
    const before = Buffer.from(chain.host.get(system.eventsKey(chain.host)) ?? []);
    for (const [how, problem] of [
      ['type', /TypeError/],
      ['stack', /RangeError/],
    ] as const) {
      const applied = executive.applyExtrinsic(chain.host, tx(bad(how)));
      test.match(applied, { ok: false, error: { type: 'Invalid', value: { type: 'Call' } }, problem });
      test.same(Buffer.from(chain.host.get(system.eventsKey(chain.host)) ?? []), before, 'no trace');
      test.match(executive.validateNext(chain.host, 'External', tx(bad(how))), { ok: true });
    }
    test.match(executive.applyExtrinsic(chain.host, tx(bad('range'))), {
      ok: false,
      error: { value: { type: 'Call' } },
    });
    test.throws(() => executive.applyExtrinsic(chain.host, tx(bad('host'))), { code: 'HOST_FAULT' });
    for (const name of ['tell', 'shout']) {
      const told = executive.applyExtrinsic(chain.host, tx(make('Bad', name)));
      test.match(told, { ok: true, outcome: { ok: false, error: { type: 'Exhausted' } } }, name);
    }
    test.match(
      executive.applyExtrinsic(chain.host, tx(bad('well'))),
      { ok: true, outcome: { ok: true } },
      'it goes on',
    );
  });
});

t.test('what only the author may put in nobody else can make, whatever the origin', async (test) => {
  const of = await world(test, { others: { governance: { votingPeriod: 2, enactmentDelay: 1, quorum: 10_000_000 } } });
  const none = { type: 'system', value: { type: 'None' } };
  for (const now of [1n, 2_999_999n + 3_000n * BigInt(1_000 + of.number())]) {
    const inner = make('Utility', 'dispatch_as', { asOrigin: none, call: make('Timestamp', 'set', { now }) });
    const done = of.dispatch(inner);
    test.equal(done.error, 'System.CallFiltered');
    of.next();
  }
});

t.test('weight pays for every byte that wrappers hash, and none is hashed twice', async (test) => {
  const of = await world(test);
  const inner = make('System', 'remark', { remark: new Uint8Array(200_000) });
  let who = accountOf('Alice');
  let outer = inner;
  const other = person(255);
  for (let level = 0; level < 32; level++) {
    outer = make('Multisig', 'as_multi_threshold_1', { otherSignatories: [other], call: outer });
    who = multisig.multisigAccount(
      of.hashing,
      [who, other].sort((a, b) => Buffer.compare(a, b)),
      1,
    );
  }
  const tx = signedBy(of, 'Alice', outer);
  const extrinsic = of.runtime.executive.extrinsics.decode(tx);
  let hashed = 0;
  let encoded = 0;
  const blake2_256 = of.host.blake2_256;
  of.host.blake2_256 = (data: Uint8Array) => {
    hashed += data.length;
    return blake2_256(data);
  };
  const env = of.env();
  const outcome = env.dispatch(extrinsic.call, { type: 'Signed', account: accountOf('Alice') });
  encoded = hashed;
  test.ok(outcome.ok);
  test.ok(encoded <= 32 * 202_000 && encoded >= 32 * 200_000, 'each level hashes what is below it once');
  const announced = of.assembly.infoOf(extrinsic.call).weight.refTime;
  test.ok(announced >= 5_000n * BigInt(hashed), 'and says so');
});

t.test('wrappers say what their calls used', async (test) => {
  const of = await world(test, { sudo: accountOf('Alice') });
  const [alice, bob] = [accountOf('Alice'), accountOf('Bob')];
  of.dispatch(make('Proxy', 'add_proxy', { delegate: to(bob), proxyType: { type: 'Any' }, delay: 0 }), alice);
  // A batch that ends at its first call, before a thousand others.
  const short = batch([
    make('Balances', 'transfer_allow_death', { dest: to(bob), value: 10n ** 30n }),
    ...nothings(1_000),
  ]);
  const announced = of.assembly.infoOf(short).weight;
  for (const [name, outer, by] of [
    ['proxy', make('Proxy', 'proxy', { real: to(alice), forceProxyType: undefined, call: short }), bob],
    ['sudo_as', make('Sudo', 'sudo_as', { who: to(alice), call: short }), alice],
    ['sudo', make('Sudo', 'sudo', { call: short }), alice],
    ['as_derivative', make('Utility', 'as_derivative', { index: 0, call: short }), alice],
    ['threshold 1', make('Multisig', 'as_multi_threshold_1', { otherSignatories: [person(255)], call: short }), alice],
    ['batch', batch([short]), alice],
    [
      'batch of proxies',
      batch([make('Proxy', 'proxy', { real: to(alice), forceProxyType: undefined, call: short })]),
      bob,
    ],
  ] as const) {
    const { outcome } = of.dispatch(outer, by);
    const used = outcome.post.actualWeight;
    test.ok(used !== undefined && exceeds(subWeight(announced, used), { refTime: 0n, proofSize: 0n }), name);
    test.ok(used !== undefined && used.refTime * 2n < announced.refTime, name);
  }
  of.dispatch(make('Balances', 'transfer_keep_alive', { dest: to(alice), value: OPEN }), bob);
});

t.test('what calls announce is asked for once for each call, however they nest', async (test) => {
  const of = await world(test);
  let asked = 0;
  const proxied = (inner: RuntimeCall) =>
    make('Proxy', 'proxy', { real: to(accountOf('Bob')), forceProxyType: undefined, call: inner });
  let outer = batch(nothings(4_000));
  for (let i = 0; i < 15; i++) outer = batch([proxied(outer)]);
  const decoded = decode(of.assembly.call, encode(of.assembly.call, outer));
  const { callDef } = of.assembly;
  const remarkDef = callDef(nothing);
  const info = remarkDef.info.bind(remarkDef);
  (remarkDef as { info: typeof info }).info = (args, infoOf) => {
    asked++;
    return info(args, infoOf);
  };
  of.assembly.infoOf(decoded);
  of.env().dispatch(decoded, { type: 'Signed', account: accountOf('Alice') });
  test.equal(asked, 4_000);
});
