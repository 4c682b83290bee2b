/** Blobs that nobody claims any more leave the node, but not for a short fork's sake. */
import t from 'tap';
import type { ChainEvent } from '../../../node/ports/chain.ts';
import { BlobKeeper } from '../../../node/services/blob-keeper.ts';
import { asHash } from '../../../runtime/primitives/types.ts';

t.test('what is unclaimed at two looks in a row goes', async (test) => {
  const blob = (fill: number) => asHash(new Uint8Array(32).fill(fill));
  let unclaimed = [blob(1), blob(2)];
  let syncing = false;
  const removed: number[] = [];
  let tell: (event: ChainEvent) => void = () => {};
  const keeper = new BlobKeeper({
    events: {
      subscribe(listener) {
        tell = listener;
        return () => {};
      },
    },
    blobs: {
      review: () => unclaimed,
      remove: async (hash) => {
        removed.push(hash[0]!);
      },
    },
    isMajorSyncing: () => syncing,
    log: () => {},
  });
  const stop = new AbortController();
  const run = keeper.run(stop.signal);
  const blocks = async (count: number) => {
    for (let i = 0; i < count; i++) tell({ type: 'imported', isNewBest: true } as ChainEvent);
    await new Promise((resolve) => setImmediate(resolve));
  };
  await blocks(100);
  test.same(removed, [], 'a first look');
  unclaimed = [blob(2), blob(3)];
  await blocks(99);
  test.same(removed, []);
  await blocks(1);
  test.same(removed, [2], 'one was claimed again meanwhile, one is new');
  syncing = true;
  await blocks(300);
  test.same(removed, [2], 'a node that syncs does not know what is claimed');
  syncing = false;
  await blocks(100);
  test.same(removed, [2], 'and begins anew afterwards');
  await blocks(100);
  test.same(removed, [2, 2, 3]);
  stop.abort();
  await run;
});
