import { TypeRegistry } from '@polkadot/types';
import type { Header as PolkadotHeader } from '@polkadot/types/interfaces';
import { cryptoWaitReady, sr25519PairFromSeed, sr25519Sign, sr25519Verify } from '@polkadot/util-crypto';
import t from 'tap';
import { noteHeader, nothingSeen, type SeenSlots, slotEquivocationProof } from '../../consensus/aura/equivocation.ts';
import {
  authoritiesChangeDigest,
  authoritiesChangeIn,
  authorOf,
  slotAt,
  slotDigest,
  slotOf,
  slotStart,
  unseal,
  withSeal,
} from '../../consensus/aura/slots.ts';
import { verifySeal } from '../../consensus/aura/verify.ts';
import { type AuraPorts, AuraWorker, type ProposalRequest } from '../../consensus/aura/worker.ts';
import { bestHead, overtakes, routeBetween } from '../../consensus/fork-choice.ts';
import type { ImportResult } from '../../node/ports/chain.ts';
import type { Block, DigestItem, Header } from '../../runtime/primitives/header.ts';
import { header as headerCodec, headerHash } from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { hashing, ManualClock, MemoryJournal, settled } from './support.ts';

await cryptoWaitReady();
const SLOT_MS = 3_000;
const key = (n: number) => sr25519PairFromSeed(new Uint8Array(32).fill(n));
const keys = [key(1), key(2), key(3)];
const authorities = keys.map((each) => each.publicKey);
const signatures = {
  verifySr25519: (signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean => {
    try {
      return sr25519Verify(message, signature, publicKey);
    } catch {
      return false;
    }
  },
};

const plain = (slot: number, number = 7, extra: readonly DigestItem[] = []): Header => ({
  parentHash: asHash(new Uint8Array(32).fill(number - 1)),
  number,
  stateRoot: asHash(new Uint8Array(32).fill(3)),
  extrinsicsRoot: asHash(new Uint8Array(32).fill(4)),
  digest: { logs: [slotDigest(slot), ...extra] },
});
const sealed = (unsealed: Header, slot: number): Header =>
  withSeal(unsealed, sr25519Sign(headerHash(hashing, unsealed), keys[slot % 3]!));

t.test('slots', async (t) => {
  t.equal(slotAt(8_999, SLOT_MS), 2);
  t.equal(slotAt(9_000, SLOT_MS), 3);
  t.equal(slotStart(3, SLOT_MS), 9_000);
  t.same(authorOf(7, authorities), authorities[1]);
  t.equal(authorOf(7, []), undefined);
});

t.test('digests are those that @polkadot/types reads', async (t) => {
  const registry = new TypeRegistry();
  const slot = 567_123_456;
  const made = sealed(plain(slot, 7, [authoritiesChangeDigest(authorities)]), slot);
  const theirs = registry.createType('Header', encode(headerCodec, made)) as unknown as PolkadotHeader;
  const [pre, change, seal] = [...theirs.digest.logs];
  t.same(pre!.asPreRuntime[0].toString(), 'aura');
  t.equal(registry.createType('u64', pre!.asPreRuntime[1].toU8a(true)).toNumber(), slot);
  t.same(change!.asConsensus[0].toString(), 'aura');
  const next = registry.createType('(u8, Vec<AuthorityId>)', change!.asConsensus[1].toU8a(true));
  t.same((next as unknown as { toU8a(): Uint8Array }[])[1]!.toU8a().slice(1), Buffer.concat(authorities));
  t.equal(seal!.asSeal[1].toU8a(true).length, 64);
  t.equal(theirs.hash.toHex(), `0x${Buffer.from(headerHash(hashing, made)).toString('hex')}`);

  t.equal(slotOf(made), slot);
  t.same(authoritiesChangeIn(made), authorities);
  t.equal(authoritiesChangeIn(plain(1)), undefined);
  t.equal(slotOf(plain(5, 7, [slotDigest(6)])), undefined, 'two slots are none');
  t.equal(slotOf({ digest: { logs: [] } }), undefined);
  t.equal(
    slotOf({ digest: { logs: [{ type: 'PreRuntime', value: [Buffer.from('aura') as never, new Uint8Array(7)] }] } }),
    undefined,
  );
});

t.test('seals', async (t) => {
  const slot = 1_000;
  const context = {
    authorities,
    parentSlot: 999,
    slotMs: SLOT_MS,
    nowMs: slotStart(slot, SLOT_MS),
    hashing,
    signatures,
  };
  const good = sealed(plain(slot), slot);
  const verdict = verifySeal(good, context);
  if (verdict.type !== 'valid') return t.fail(JSON.stringify(verdict));
  t.same(verdict.author, authorities[slot % 3]);
  t.same(verdict.preHash, headerHash(hashing, plain(slot)));
  t.equal(verifySeal(good, { ...context, parentSlot: undefined }).type, 'valid', 'on top of genesis');

  const code = (header: Header, change: Partial<typeof context> = {}): string => {
    const result = verifySeal(header, { ...context, ...change });
    return result.type === 'invalid' ? result.code : result.type;
  };
  t.equal(code(plain(slot)), 'NO_SEAL');
  t.equal(
    code({ ...good, digest: { logs: [good.digest.logs[1]!, good.digest.logs[0]!] } }),
    'NO_SEAL',
    'the seal comes last',
  );
  t.equal(code(withSeal(plain(slot), new Uint8Array(63))), 'NO_SEAL');
  t.equal(code({ ...good, digest: { logs: good.digest.logs.slice(1) } }), 'NO_SLOT');
  t.equal(code(good, { parentSlot: 1_000 }), 'SLOT_NOT_INCREASING');
  t.equal(code(good, { authorities: [] }), 'NO_AUTHORITIES');
  t.equal(code(good, { authorities: [authorities[0]!] }), 'BAD_SEAL', "someone else's slot");
  t.equal(code({ ...good, stateRoot: asHash(new Uint8Array(32)) }), 'BAD_SEAL', 'the seal covers the header');
  t.equal(code(withSeal(plain(slot), new Uint8Array(64))), 'BAD_SEAL');
  t.equal(code(good, { nowMs: slotStart(slot, SLOT_MS) - 30_000 }), 'valid', 'thirty seconds ahead');
  t.equal(code(good, { nowMs: slotStart(slot, SLOT_MS) - 30_001 }), 'future');
  const twice = withSeal(good, unseal(good)!.signature);
  t.equal(code(twice), 'BAD_SEAL', 'a seal on a sealed header');
});

t.test('equivocation', async (t) => {
  let seen: SeenSlots = nothingSeen;
  const note = (slot: number, header: Header) => {
    const result = noteHeader(seen, slot, authorities[slot % 3]!, header);
    seen = result.seen;
    return result.equivocation;
  };
  const first = sealed(plain(50, 7), 50);
  const second = sealed(plain(50, 8), 50);
  t.equal(note(50, first), undefined);
  t.equal(note(50, first), undefined, 'the same header again');
  t.equal(note(51, sealed(plain(51, 9), 51)), undefined);
  const proof = note(50, second)!;
  t.same(proof.offender, authorities[50 % 3]);
  t.same([proof.firstHeader, proof.secondHeader], [first, second]);
  t.same(decode(slotEquivocationProof, encode(slotEquivocationProof, proof)).slot, 50n);
  for (let slot = 60; slot < 6_000; slot++) note(slot, plain(slot, 9));
  t.ok(seen.headers.size <= 2_001, `${seen.headers.size} slots are kept`);
  t.equal(note(50, first), undefined, 'too old to say');
  t.equal(seen.headers.has(50), false);
});

interface Bench {
  readonly worker: AuraWorker;
  readonly clock: ManualClock;
  readonly journal: MemoryJournal;
  readonly log: string[];
  readonly requests: ProposalRequest[];
  readonly blocks: Block[];
  syncing: boolean;
  /** On each block that is made. */
  verdict: ImportResult;
  buildMs: number;
}

function bench(journal = new MemoryJournal(), clock = new ManualClock(3_000_000 * SLOT_MS + 2_000)): Bench {
  const blocks: Block[] = [];
  const log: string[] = [];
  const requests: ProposalRequest[] = [];
  journal.onPut = () => log.push('written');
  const genesis: Header = { ...plain(0), number: 0, digest: { logs: [] } };
  const ports: AuraPorts = {
    best: () => {
      const header = blocks.at(-1)?.header ?? genesis;
      return { ref: { hash: headerHash(hashing, header), number: header.number }, header };
    },
    authorities: () => authorities,
    async propose(request) {
      requests.push(request);
      await new Promise<void>((resolve) => clock.after(self.buildMs, resolve));
      return {
        header: { ...plain(request.slot, request.parent.number + 1), parentHash: request.parent.hash },
        extrinsics: [],
      };
    },
    importer: {
      async import(block, { origin }) {
        log.push(`imported ${origin}`);
        if (self.verdict.type === 'imported') blocks.push(block);
        return self.verdict;
      },
    },
    isMajorSyncing: () => self.syncing,
    keystore: {
      has: (_, publicKey) => publicKey === authorities[0],
      sign: (_, publicKey, message) => (publicKey === authorities[0] ? sr25519Sign(message, keys[0]!) : undefined),
    },
    hashing,
    journal,
    clock,
    log: (level, message) => log.push(`${level} ${message}`),
  };
  const self: Bench = {
    worker: new AuraWorker(ports, { slotMs: SLOT_MS }),
    clock,
    journal,
    log,
    requests,
    blocks,
    syncing: false,
    verdict: { type: 'imported', isNewBest: true },
    buildMs: 0,
  };
  return self;
}

t.test('worker: authors its slots, written down first', async (t) => {
  const b = bench();
  const stop = new AbortController();
  const running = b.worker.run(stop.signal);
  await b.clock.advance(9 * SLOT_MS);
  t.equal(b.blocks.length, 3, 'one slot of three is ours');
  t.same(b.log, ['written', 'imported own', 'written', 'imported own', 'written', 'imported own']);
  const slots = b.blocks.map((block) => slotOf(block.header)!);
  t.same(
    slots.map((slot) => slot % 3),
    [0, 0, 0],
  );
  for (const [i, { header }] of b.blocks.entries()) {
    const verdict = verifySeal(header, {
      authorities,
      parentSlot: slots[i - 1],
      slotMs: SLOT_MS,
      nowMs: b.clock.now(),
      hashing,
      signatures,
    });
    t.equal(verdict.type, 'valid');
  }
  t.equal(b.requests[0]!.timestamp, slotStart(slots[0]!, SLOT_MS));
  t.equal(b.requests[0]!.deadline, slotStart(slots[0]!, SLOT_MS) + 2_000);
  b.syncing = true;
  await b.clock.advance(9 * SLOT_MS);
  t.equal(b.blocks.length, 3, 'nothing while syncing');
  stop.abort();
  await running;
  t.equal(b.clock.pending, 0, 'no timer is left');
});

t.test('worker: after a crash, no slot twice', async (t) => {
  const b = bench();
  const slot = 3_000_003;
  await b.clock.advance(slotStart(slot, SLOT_MS) - b.clock.now());
  const { signal } = new AbortController();
  const run = async (each: Bench, which: number) => {
    const result = each.worker.claim(which, signal);
    await b.clock.advance(1);
    return await result;
  };
  t.equal((await run(b, slot)).type, 'authored');
  const again = bench(b.journal, b.clock);
  t.match(await run(again, slot), { type: 'skipped', reason: 'alreadyAuthored' });
  t.equal(again.requests.length, 0, 'not even built');
  t.match(await run(again, slot + 1), { type: 'skipped', reason: 'notOurTurn' });
  await b.clock.advance(3 * SLOT_MS);
  t.equal((await run(again, slot + 3)).type, 'authored');
  t.match(await run(again, slot + 3), { type: 'skipped', reason: 'slotTaken' });
});

t.test('worker: a block that nobody wants any more', async (t) => {
  const b = bench();
  const { signal } = new AbortController();
  const claim = async (slot: number) => {
    await b.clock.advance(slotStart(slot, SLOT_MS) - b.clock.now());
    const result = b.worker.claim(slot, signal);
    await b.clock.advance(1);
    return await result;
  };
  b.verdict = { type: 'abandoned' };
  t.match(await claim(3_000_003), { type: 'skipped', reason: 'tooLate' });
  t.match(b.log.at(-1), /^info our own block came too late/);
  b.verdict = { type: 'invalid', reason: 'EXTRINSICS_ROOT' };
  t.match(await claim(3_000_006), { type: 'skipped', reason: 'notImported' });
  t.match(b.log.at(-1), /^error our own block was not imported/);
});

t.test('worker: slow building, and a journal that fails', async (t) => {
  const b = bench();
  const slot = 3_000_003;
  await b.clock.advance(slotStart(slot, SLOT_MS) + 1_500 - b.clock.now());
  const { signal } = new AbortController();
  b.buildMs = 900;
  let result = b.worker.claim(slot, signal);
  await b.clock.advance(2_000);
  t.equal((await result).type, 'authored');
  t.equal(b.requests[0]!.deadline, slotStart(slot, SLOT_MS) + 2_500, 'two thirds of what is left');
  await b.clock.advance(slotStart(slot + 3, SLOT_MS) - b.clock.now());
  b.buildMs = 4_000;
  result = b.worker.claim(slot + 3, signal);
  await b.clock.advance(5_000);
  t.equal((await result).type, 'authored', 'late, and nobody else built');
  await b.clock.advance(slotStart(slot + 6, SLOT_MS) - b.clock.now());
  b.buildMs = 7_000;
  result = b.worker.claim(slot + 6, signal);
  await b.clock.advance(8_000);
  t.match(await result, { type: 'skipped', reason: 'tooLate' });

  b.buildMs = 0;
  b.journal.broken = true;
  await b.clock.advance(slotStart(slot + 9, SLOT_MS) - b.clock.now());
  const imports = b.blocks.length;
  const failing = b.worker.claim(slot + 9, signal);
  const failed = t.rejects(failing, { code: 'JOURNAL' });
  await b.clock.advance(10);
  await failed;
  t.equal(b.blocks.length, imports, 'nothing left the machine');
  await settled();
});

t.test('fork choice', async (t) => {
  const heads = [
    { hash: 'a', number: 5 },
    { hash: 'b', number: 7 },
    { hash: 'c', number: 7 },
    { hash: 'd', number: 9 },
  ];
  const finalized = { hash: 'f', number: 4 };
  t.equal(
    bestHead(heads, finalized, (head) => head.hash !== 'd').hash,
    'b',
    'the first seen of the longest on the finalized block',
  );
  t.equal(bestHead(heads, finalized, () => false).hash, 'f');
  t.notOk(overtakes({ hash: 'c', number: 7 }, { hash: 'b', number: 7 }));
  const parents: Record<string, string> = { c3: 'c2', c2: 'b1', d2: 'b1', b1: 'g0' };
  const at = (hash: string) => ({ hash, number: Number(hash[1]) });
  const parent = ({ hash }: { hash: string }) => (parents[hash] === undefined ? undefined : at(parents[hash]));
  const route = routeBetween(at('d2'), at('c3'), parent, (a, b) => a === b)!;
  t.same(route, { retracted: [at('d2')], enacted: [at('c2'), at('c3')] });
  t.same(
    routeBetween(at('b1'), at('c3'), parent, (a, b) => a === b),
    { retracted: [], enacted: [at('c2'), at('c3')] },
  );
  t.equal(
    routeBetween(at('x9'), at('c3'), parent, (a, b) => a === b),
    undefined,
  );
});
