/** Blocks from elsewhere: what is refused, what it is called, and what a node that syncs has of them at any moment. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { systemClock } from '../../node/ports/machine.ts';
import { extrinsicsRoot } from '../../node/state/trie.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { type Block, type Header, headerHash, type Justifications } from '../../runtime/primitives/header.ts';
import { asHash } from '../../runtime/primitives/types.ts';
import { type OwnChain, openChain } from '../support/own-chain.ts';

const SLOT_MS = 3_000;
const spec = presetSpec('dev', { slotDurationMs: SLOT_MS });
const hashing = createHashing();
const hashIn = (header: Header) => headerHash(hashing, header);

async function home(test: Test): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'import-'));
  test.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function open(test: Test, path: string, slot: () => number): Promise<OwnChain> {
  const own = await openChain(spec, path, { ...systemClock, now: () => slot() * SLOT_MS });
  test.teardown(() => own.close());
  return own;
}

/** The block with another body or header, sealed anew, with the extrinsics root that its body has. */
function altered(own: OwnChain, { header, extrinsics }: Block, change: Partial<Block & Header>): Block {
  const body = change.extrinsics ?? extrinsics;
  const { extrinsics: _, header: __, ...fields } = change as Partial<Block & Header> & { header?: unknown };
  const logs = header.digest.logs.slice(0, -1);
  const root = asHash(extrinsicsRoot(hashing.blake2_256, body));
  return { header: own.seal({ ...header, digest: { logs }, extrinsicsRoot: root, ...fields }), extrinsics: body };
}

t.test('blocks that break a rule', { timeout: 60_000 }, async (test) => {
  let slot = 1_000;
  const author = await open(test, await home(test), () => slot);
  const reader = await open(test, await home(test), () => slot);
  const first = await author.propose(slot);
  const invalid = async (what: string, block: Block, reason: RegExp) => {
    for (const origin of ['gossip', 'sync'] as const) {
      reader.chain.prepare([block]);
      const result = await reader.chain.import(block, { origin });
      test.match(result, { type: 'invalid', reason }, `${what}, by ${origin}`);
    }
    test.equal(reader.chain.blocks.info().best.number, 0);
    test.equal(reader.chain.blocks.header(hashIn(block.header)), undefined, `${what} left nothing`);
  };
  const [inherent] = first.extrinsics;
  const garbage = Uint8Array.of(4, 255, 255);
  await invalid('garbage', altered(author, first, { extrinsics: [inherent!, garbage] }), /^BAD_EXTRINSIC/);
  await invalid('garbage alone', altered(author, first, { extrinsics: [garbage] }), /missing inherent/);
  await invalid(
    'a signed one that is none',
    altered(author, first, { extrinsics: [inherent!, Uint8Array.of(0x84)] }),
    /^BAD_EXTRINSIC/,
  );
  await invalid('no time', altered(author, first, { extrinsics: [] }), /missing inherent/);
  await invalid(
    'the time twice',
    altered(author, first, { extrinsics: [inherent!, inherent!] }),
    /^(BAD_EXTRINSIC|MANDATORY)/,
  );
  const other = asHash(new Uint8Array(32).fill(7));
  await invalid('another state', altered(author, first, { stateRoot: other }), /^STATE_ROOT_MISMATCH/);
  await invalid('another body', altered(author, first, { extrinsicsRoot: other }), /^EXTRINSICS_ROOT_MISMATCH/);
  await invalid('another height', altered(author, first, { number: 2 }), /height/);
  const logs = first.header.digest.logs;
  const torn = { ...first.header, digest: { logs: [...logs.slice(0, -1), { ...logs.at(-1)! }] } };
  const seal = logs.at(-1) as { value: [Uint8Array, Uint8Array] };
  const forged = {
    ...torn,
    digest: {
      logs: [...logs.slice(0, -1), { type: 'Seal', value: [seal.value[0], new Uint8Array(64).fill(1)] } as never],
    },
  };
  await invalid('a forged seal', { header: forged, extrinsics: first.extrinsics }, /seal/);

  const orphan = altered(author, first, { parentHash: other });
  test.match(await reader.chain.import(orphan, { origin: 'sync' }), { type: 'unknownParent' });
  slot -= 100;
  test.match(await reader.chain.import(first, { origin: 'sync' }), { type: 'future' });
  slot += 100;
  test.match(await reader.chain.import(first, { origin: 'sync' }), { type: 'imported', isNewBest: true });
  test.match(await reader.chain.import(first, { origin: 'sync' }), { type: 'known' });
});

t.test('what was synced is read at once, and is there after a restart', { timeout: 60_000 }, async (test) => {
  let slot = 1_000;
  const [authorPath, readerPath] = [await home(test), await home(test)];
  const author = await open(test, authorPath, () => slot);
  const reader = await openChain(spec, readerPath, { ...systemClock, now: () => slot * SLOT_MS });
  const blocks: Block[] = [];
  for (let i = 0; i < 60; i++) {
    slot++;
    const block = await author.propose(slot);
    await author.chain.import(block, { origin: 'own' });
    blocks.push(block);
  }
  reader.chain.prepare(blocks);
  const { database, chain } = reader;
  let most = 0;
  for (const [i, block] of blocks.entries()) {
    const hash = hashIn(block.header);
    const proof = i % 20 === 19 ? { justifications: author.justify(block.header, i) } : {};
    test.match(await chain.import(block, { origin: 'sync', ahead: true, ...proof }), { type: 'imported' });
    most = Math.max(most, database.backlog);
    // All of it, though some is on its way to the disk only.
    test.same(chain.blocks.hashOf(i + 1), hash);
    test.same(chain.blocks.body(hash)?.map(toHex), block.extrinsics.map(toHex));
    test.equal(toHex(chain.at(hash)!.root), toHex(block.header.stateRoot));
  }
  test.ok(most > 0, 'blocks were imported while others were being written');
  test.equal(chain.blocks.info().finalized.number, 60);
  await reader.close();

  const again = await open(test, readerPath, () => slot);
  const { best, finalized } = again.chain.blocks.info();
  test.same([best.number, finalized.number], [60, 60]);
  test.same(best.hash, hashIn(blocks.at(-1)!.header));
  for (const { header } of blocks) test.equal(toHex(again.chain.at(hashIn(header))!.root), toHex(header.stateRoot));
  const hex = (proofs: Justifications | undefined) => proofs?.map((each) => each.map(toHex));
  const [stored, given] = [again.chain.blocks.justifications(best.hash), author.justify(blocks.at(-1)!.header, 59)];
  test.same(hex(stored), hex(given));
});
