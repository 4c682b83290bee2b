/**
 * Bodies outside of the window are removed, headers stay, and so do the proofs by which others follow the set. What is held
 * outlives its abandonment.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { authorityList, grandpaLogItem } from '../../../consensus/grandpa/authorities.ts';
import { BlockStore } from '../../../node/blocks/block-store.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { Database } from '../../../node/database/database.ts';
import { equalBytes, toHex } from '../../../runtime/primitives/bytes.ts';
import { GRANDPA_ENGINE, type Header, headerHash } from '../../../runtime/primitives/header.ts';
import { decode, encode } from '../../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash, ZERO_HASH } from '../../../runtime/primitives/types.ts';

const hashing = createHashing();
const change = grandpaLogItem({
  type: 'ScheduledChange',
  value: {
    nextAuthorities: decode(authorityList, encode(authorityList, [[new Uint8Array(32), 1n]])),
    delay: 0,
  },
});
const CHANGES_AT = 3;

t.test('a window of blocks', async (test) => {
  const path = await mkdtemp(join(tmpdir(), 'blocks-'));
  test.teardown(() => rm(path, { recursive: true, force: true }));
  let database = await Database.open(path);
  test.teardown(() => database.close());
  const headerOf = (number: number, parentHash: Header['parentHash'], salt = 0): Header => ({
    parentHash,
    number,
    stateRoot: asHash(new Uint8Array(32).fill(salt)),
    extrinsicsRoot: ZERO_HASH,
    digest: { logs: number === CHANGES_AT ? [change] : [] },
  });
  const genesis = headerOf(0, ZERO_HASH);
  const creation = database.batch();
  BlockStore.create(database, creation, headerHash(hashing, genesis), genesis);
  await creation.commit();

  const extend = async (store: BlockStore, by: number, finalize = true): Promise<void> => {
    for (let i = 0; i < by; i++) {
      const { best } = store.info();
      const header = headerOf(best.number + 1, best.hash);
      const hash = headerHash(hashing, header);
      const batch = database.batch();
      const made = store.insert(batch, hash, { header, extrinsics: [Uint8Array.of(header.number)] }, 'own');
      await batch.commit();
      made.apply();
      if (finalize) await final(store);
    }
  };
  const final = async (store: BlockStore): Promise<void> => {
    const batch = database.batch();
    const done = store.finalize(batch, store.info().best, [[GRANDPA_ENGINE, Uint8Array.of(1)]], {
      isHeld: () => false,
      above: 0,
    });
    await batch.commit();
    done.apply();
  };
  const kept = (store: BlockStore): number[] => {
    const numbers: number[] = [];
    for (let number = 1; number <= store.info().best.number; number++) {
      const hash = store.hashOf(number)!;
      test.equal(store.header(hash)?.number, number, 'every header is here');
      if (store.body(hash) !== undefined) numbers.push(number);
    }
    return numbers;
  };
  const proven = (store: BlockStore, number: number) => store.justifications(store.hashOf(number)!) !== undefined;

  const archive = (await BlockStore.open(database, { pruning: 'archive' }))!;
  await extend(archive, 6);
  test.same(kept(archive), [1, 2, 3, 4, 5, 6]);
  await database.close();

  database = await Database.open(path);
  const narrow = (await BlockStore.open(database, { pruning: 4 }))!;
  await extend(narrow, 1);
  test.same(kept(narrow), [4, 5, 6, 7], 'what an archive had goes too');
  await extend(narrow, 5, false);
  test.same(kept(narrow), [4, 5, 6, 7, 8, 9, 10, 11, 12], 'only final blocks are removed');
  await final(narrow);
  test.same(kept(narrow), [9, 10, 11, 12]);
  test.equal(proven(narrow, CHANGES_AT), true, 'the proof of a change of the set stays');
  test.equal(proven(narrow, CHANGES_AT - 1), false);
  await database.close();

  database = await Database.open(path);
  const again = (await BlockStore.open(database, { pruning: 4 }))!;
  await extend(again, 1);
  test.same(kept(again), [10, 11, 12, 13], 'it goes on where it was');
});

t.test('abandoned blocks stay while they are held, with what they stand on', async (test) => {
  const path = await mkdtemp(join(tmpdir(), 'blocks-'));
  test.teardown(() => rm(path, { recursive: true, force: true }));
  let database = await Database.open(path);
  test.teardown(() => database.close());
  const creation = database.batch();
  const genesis: Header = {
    parentHash: ZERO_HASH,
    number: 0,
    stateRoot: ZERO_HASH,
    extrinsicsRoot: ZERO_HASH,
    digest: { logs: [] },
  };
  const root = headerHash(hashing, genesis);
  BlockStore.create(database, creation, root, genesis);
  await creation.commit();
  let store = (await BlockStore.open(database, { pruning: 'archive' }))!;
  const add = async (parent: Hash, salt: number): Promise<Hash> => {
    const number = store.header(parent)!.number + 1;
    const stateRoot = asHash(new Uint8Array(32).fill(salt));
    const header: Header = { parentHash: parent, number, stateRoot, extrinsicsRoot: ZERO_HASH, digest: { logs: [] } };
    const hash = headerHash(hashing, header);
    const batch = database.batch();
    const made = store.insert(batch, hash, { header, extrinsics: [Uint8Array.of(salt)] }, 'gossip');
    await batch.commit();
    made.apply();
    return hash;
  };
  const final = async (hash: Hash, held: readonly Hash[], above = 0): Promise<readonly string[]> => {
    const told: string[] = [];
    const unsubscribe = store.subscribe((event) => {
      if (event.type === 'finalized') told.push(...event.pruned.map(toHex));
    });
    const batch = database.batch();
    const target = { hash, number: store.header(hash)!.number };
    const isHeld = (each: Hash) => held.some((one) => equalBytes(one, each));
    const done = store.finalize(batch, target, [[GRANDPA_ENGINE, Uint8Array.of(1)]], { isHeld, above });
    await batch.commit();
    done.apply();
    unsubscribe();
    return told;
  };
  const isHere = (hash: Hash): boolean => {
    test.equal(store.header(hash) !== undefined, store.body(hash) !== undefined, 'header and body go together');
    return store.header(hash) !== undefined;
  };
  const main: Hash[] = [root];
  for (let i = 1; i <= 6; i++) main.push(await add(main[i - 1]!, 0));
  const low = await add(root, 1);
  const middle = await add(low, 1);
  const high = await add(middle, 1);
  const beside = await add(low, 2);
  const later = await add(main[2]!, 3);
  test.same((await final(main[1]!, [middle])).toSorted(), [low, middle, high, beside].map(toHex).toSorted());
  test.same([low, middle, high, beside].map(isHere), [true, true, false, false], 'what it stands on stays with it');
  test.same(
    store.leaves().map(toHex).toSorted(),
    [main[6]!, later].map(toHex).toSorted(),
    'they are no heads any more',
  );
  test.same(store.hashesAt(2).map(toHex), [toHex(main[2]!)], 'nor of any height');
  test.same(
    [low, middle].map((each) => store.isFinalized(each)),
    [false, false],
  );

  await database.close();
  database = await Database.open(path);
  store = (await BlockStore.open(database, { pruning: 'archive' }))!;
  test.same(store.hashesAt(2).map(toHex), [toHex(main[2]!)], 'a restart does not bring them back');
  test.same([low, middle].map(isHere), [true, true]);
  test.same(await final(main[3]!, [later]), [toHex(later)]);
  test.same([low, middle, later].map(isHere), [false, false, true], 'held no longer, they are removed, and told once');
  await final(main[4]!, [later], 2);
  test.ok(isHere(later), 'its fork begins above');
  await final(main[5]!, [later], 3);
  test.notOk(isHere(later), 'what it shares with final states leaves the window');
});
