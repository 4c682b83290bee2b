import { SubstrateBatchProcessor } from '@subsquid/substrate-processor';
import { check, INHERENTS, lastHundred, main, url } from '../check.mjs';

/** Keeps the height that the processor has come to, which is all that it needs of a database. */
class Final {
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

/** The same, with blocks that may yet change; every block that comes is told on. */
class Hot {
  supportsHotBlocks = true;
  #state;
  #told;
  constructor(state, told) {
    this.#state = { ...state, top: [] };
    this.#told = told;
  }
  async connect() {
    return this.#state;
  }
  async transact({ nextHead }, run) {
    await run({});
    this.#state = { ...nextHead, top: [] };
  }
  async transactHot2({ finalizedHead, newBlocks }, run) {
    await run({}, 0, newBlocks.length);
    this.#told(finalizedHead, newBlocks);
  }
}

const FIELDS = {
  block: { timestamp: true },
  extrinsic: { success: true, hash: true, fee: true, tip: true, signature: true },
  call: { args: true },
  event: { args: true },
};
const everything = (endpoint, range) =>
  new SubstrateBatchProcessor()
    .setRpcEndpoint({ url: endpoint })
    .setBlockRange(range)
    .setFields(FIELDS)
    .addEvent({ extrinsic: true, call: true })
    .addCall({ events: true, extrinsic: true })
    .includeAllBlocks();

/** Which scheme signed, by what the library shows of a MultiSignature. */
const schemeOf = ({ signature }) => signature?.signature?.__kind ?? signature?.signature?.kind;

async function range(endpoint, heights) {
  const kind = endpoint.split(':')[0];
  const final = heights.at(-1);
  const seen = { blocks: 0, events: 0, calls: 0, extrinsics: 0, signed: 0, failed: 0, last: 0 };
  const schemes = new Set();
  const calls = new Set();
  const wrongFees = [];
  await new Promise((resolve, reject) => {
    const processor = everything(endpoint, { from: heights[0], to: final });
    processor.run(new Final(), async ({ blocks }) => {
      for (const { header, events, calls: made, extrinsics } of blocks) {
        seen.blocks++;
        seen.events += events.filter(({ name }) => name.includes('.')).length;
        seen.calls += made.filter(({ name, args }) => name.includes('.') && args !== undefined).length;
        for (const { name } of made) calls.add(name);
        seen.extrinsics += extrinsics.length;
        seen.last = header.height;
        for (const each of extrinsics) {
          if (each.signature === undefined) continue;
          seen.signed++;
          if (each.success === false) seen.failed++;
          schemes.add(schemeOf(each));
          const paid = events.find(
            ({ name, extrinsic }) =>
              name === 'TransactionPayment.TransactionFeePaid' && extrinsic?.index === each.index,
          );
          // The library takes the tip off.
          if (paid === undefined || BigInt(paid.args.actualFee) !== each.fee + each.tip) {
            wrongFees.push(`${header.height}: ${paid?.args.actualFee} ${each.fee} ${each.tip}`);
          }
        }
      }
      if (seen.last === final) resolve();
    });
    setTimeout(() => reject(new Error(`the processor came to ${seen.last} of ${final}`)), 120_000).unref();
  });
  const told = JSON.stringify({ ...seen, schemes: [...schemes], calls: [...calls] });
  check(`${kind}: reads every block`, seen.blocks === 100, told);
  check(
    `${kind}: decodes every call and event`,
    seen.calls >= seen.extrinsics && seen.extrinsics === 100 * INHERENTS + seen.signed && seen.events > seen.extrinsics,
    told,
  );
  check(
    `${kind}: transactions of all schemes, one of them failed`,
    seen.signed > 10 && schemes.size === 3 && seen.failed > 0,
    told,
  );
  check(
    `${kind}: calls within calls`,
    ['Utility.batch_all', 'Utility.force_batch', 'Proxy.proxy'].every((name) => calls.has(name)),
    told,
  );
  check(`${kind}: the fees are those charged`, wrongFees.length === 0, wrongFees.join('; '));
}

await main(async () => {
  // It ends the process when it has come to the end of its range.
  process.exit = () => {};
  const heights = await lastHundred();
  for (const endpoint of [url, url.replace('ws:', 'http:')]) await range(endpoint, heights);
  const heads = [];
  let finalized;
  await new Promise((resolve, reject) => {
    const from = heights.at(-1);
    const told = (final, blocks) => {
      heads.push(...blocks.map(({ height }) => height));
      finalized = final.height;
      if (new Set(heads).size >= 6 && finalized > from) resolve();
    };
    everything(url, { from }).run(new Hot({ height: -1, hash: '0x' }, told), async () => {});
    setTimeout(() => reject(new Error(`no heads beyond ${heads.at(-1)}, final ${finalized}`)), 120_000).unref();
  });
  check(
    'follows best and finalized heads',
    heads.every((each, i) => i === 0 || each === heads[i - 1] + 1) && finalized <= heads.at(-1),
    `${heads} ${finalized}`,
  );
});
