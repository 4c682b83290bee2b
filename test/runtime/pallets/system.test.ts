/** System: what of the chain's past stays in its state. */
import t from 'tap';
import { BLOCK_HASH_COUNT, blockHash } from '../../../runtime/pallets/standard/system.ts';
import { asHash, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { createWorld, genesisOf } from './world.ts';

t.test('hashes of blocks leave the state, that of the genesis block never', async (test) => {
  const genesis = asHash(new Uint8Array(32).fill(7));
  const world = await createWorld(genesisOf(), genesis);
  test.teardown(world.close);
  const height = BLOCK_HASH_COUNT + 4;
  world.next(height);
  test.same(blockHash(world.host, 0), genesis, 'transactions are signed for it, immortal ones were born by it');
  const kept = (number: number) => !Buffer.from(blockHash(world.host, number)).equals(ZERO_HASH);
  const oldest = height - BLOCK_HASH_COUNT;
  test.same([1, oldest - 1, oldest, height - 1].map(kept), [false, false, true, true]);
});
