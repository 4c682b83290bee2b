import { SubstrateBatchProcessor } from '@subsquid/substrate-processor';
import { check, lastHundred, main, url } from '../check.mjs';

/** Keeps the height that the processor has come to, which is all that it needs of a database. */
class Memory {
  supportsHotBlocks = false;
  #state = { height: -1, hash: '0x' };
  async connect() {
    return this.#state;
  }
  async transact({ nextHead }, run) {
    await run({});
    this.#state = nextHead;
  }
}

await main(async () => {
  // It ends the process when it has come to the end of its range.
  process.exit = () => {};
  const heights = await lastHundred();
  const [first] = heights;
  const final = heights.at(-1);
  for (const endpoint of [url, url.replace('ws:', 'http:')]) {
    const processor = new SubstrateBatchProcessor()
      .setRpcEndpoint({ url: endpoint })
      .setBlockRange({ from: first, to: final })
      .setFields({
        block: { timestamp: true },
        extrinsic: { success: true, hash: true, fee: true },
        call: { args: true },
        event: { args: true },
      })
      .addEvent({ extrinsic: true, call: true })
      .addCall({ events: true, extrinsic: true })
      .includeAllBlocks();
    const seen = { blocks: 0, events: 0, calls: 0, extrinsics: 0, last: 0 };
    await new Promise((resolve, reject) => {
      const database = new Memory();
      processor.run(database, async ({ blocks }) => {
        for (const { header, events, calls, extrinsics } of blocks) {
          seen.blocks++;
          seen.events += events.filter(({ name }) => name.includes('.')).length;
          seen.calls += calls.filter(({ name, args }) => name.includes('.') && args !== undefined).length;
          seen.extrinsics += extrinsics.length;
          seen.last = header.height;
        }
        if (seen.last === final) resolve();
      });
      setTimeout(() => reject(new Error(`the processor came to ${seen.last} of ${final}`)), 60_000).unref();
    });
    const kind = endpoint.split(':')[0];
    check(`${kind}: reads every block`, seen.blocks === 100, JSON.stringify(seen));
    check(
      `${kind}: decodes every call and event`,
      seen.events > seen.calls && seen.calls >= 100 && seen.extrinsics > 100,
      JSON.stringify(seen),
    );
  }
});
