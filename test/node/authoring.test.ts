/** A transaction that throws, or a block that cannot be ended, keeps no node from authoring and ends no import. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { slotDigest } from '../../consensus/aura/slots.ts';
import { newRuntime } from '../../node/chain/genesis.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import type { BestFirst } from '../../node/pool/best-first.ts';
import { systemClock } from '../../node/ports/machine.ts';
import { HostFault } from '../../runtime/host.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import { openChain } from '../support/own-chain.ts';

const SLOT_MS = 3_000;
const SLOT = 1_000;
const spec = presetSpec('dev', { slotDurationMs: SLOT_MS });

/** Extrinsics that the runtime knows nothing of; the executive below is told what they do. */
const GOOD = Uint8Array.of(0xaa, 1);
const ALSO_GOOD = Uint8Array.of(0xaa, 2);
const THROWS = Uint8Array.of(0xbb);
const BREAKS_THE_END = Uint8Array.of(0xcc);
const hashOf = (extrinsic: Uint8Array): Hash => asHash(new Uint8Array(32).fill(extrinsic.at(-1)!));

/** A runtime in which these extrinsics do what their names say. `faulty`: the machine fails at the good ones. */
function strange({ faulty = false } = {}): Runtime {
  const runtime = newRuntime();
  const { executive } = runtime;
  const apply = executive.applyExtrinsic.bind(executive);
  const finalize = executive.finalizeBlock.bind(executive);
  let broken = false;
  executive.applyExtrinsic = (host, bytes) => {
    switch (bytes[0]) {
      case 0xaa:
        if (faulty) throw new HostFault('the disk is gone');
        return { ok: true, outcome: { ok: true, post: {} } };
      case 0xbb:
        return { ok: false, error: { type: 'Invalid', value: { type: 'Call' } }, problem: 'TypeError: a bug' };
      case 0xcc:
        broken = true;
        return { ok: true, outcome: { ok: true, post: {} } };
      default:
        return apply(host, bytes);
    }
  };
  const initialize = executive.initializeBlock.bind(executive);
  executive.initializeBlock = (host, header) => {
    broken = false;
    initialize(host, header);
  };
  executive.finalizeBlock = (host) => {
    if (broken) throw new RangeError('Maximum call stack size exceeded');
    return finalize(host);
  };
  return runtime;
}

async function open(test: Test, runtime: Runtime) {
  const path = await mkdtemp(join(tmpdir(), 'authoring-'));
  const own = await openChain(spec, path, { ...systemClock, now: () => SLOT * SLOT_MS }, runtime);
  test.teardown(async () => {
    await own.close();
    await rm(path, { recursive: true, force: true });
  });
  return own;
}

async function propose(test: Test, runtime: Runtime, pool: readonly Uint8Array[]) {
  const own = await open(test, runtime);
  const dropped: string[] = [];
  let at = 0;
  const best = {
    next: () => (at < pool.length ? { hash: hashOf(pool[at]!), extrinsic: pool[at++]! } : undefined),
    markInvalid() {},
  } as unknown as BestFirst;
  const request = {
    parent: own.chain.blocks.info().best,
    slot: SLOT,
    preRuntime: slotDigest(SLOT),
    timestamp: SLOT * SLOT_MS,
    deadline: Number.POSITIVE_INFINITY,
    signal: new AbortController().signal,
  };
  const made = own.chain.propose(request, best, (hash) => dropped.push(toHex(hash)));
  return { own, made, dropped };
}

t.test('a transaction that throws is dropped, and the block goes on', async (test) => {
  const { made, dropped } = await propose(test, strange(), [GOOD, THROWS, ALSO_GOOD]);
  const { extrinsics } = await made;
  test.same(extrinsics.slice(1), [GOOD, ALSO_GOOD]);
  test.same(dropped, [toHex(hashOf(THROWS))]);
});

t.test('a block that cannot be ended is made without transactions, and those are dropped', async (test) => {
  const { own, made, dropped } = await propose(test, strange(), [GOOD, BREAKS_THE_END]);
  const { header, extrinsics } = await made;
  test.equal(extrinsics.length, 1, 'the time alone');
  test.same(
    dropped,
    [GOOD, BREAKS_THE_END].map((each) => toHex(hashOf(each))),
  );
  const block = { header: own.seal(header), extrinsics: [...extrinsics] };
  test.match(await own.chain.import(block, { origin: 'own' }), { type: 'imported', isNewBest: true });
});

t.test('a fault of the machine is not blamed on a transaction', async (test) => {
  const { made, dropped } = await propose(test, strange({ faulty: true }), [GOOD]);
  await test.rejects(made, { code: 'HOST_FAULT' });
  test.same(dropped, []);
});

t.test('a block that throws while it is imported is invalid, and says why', async (test) => {
  const { own, made } = await propose(test, newRuntime(), []);
  const { header, extrinsics } = await made;
  const imported = async (runtime: Runtime, more: Uint8Array) => {
    const reader = await open(test, runtime);
    const block = { header: own.seal(header), extrinsics: [...extrinsics, more] };
    return reader.chain.import(block, { origin: 'gossip' });
  };
  test.match(await imported(strange(), THROWS), { type: 'invalid', reason: /BAD_EXTRINSIC.*TypeError: a bug/ });
  test.match(await imported(strange(), BREAKS_THE_END), { type: 'invalid', reason: /Maximum call stack/ });
  await test.rejects(imported(strange({ faulty: true }), GOOD), { code: 'HOST_FAULT' });
});
