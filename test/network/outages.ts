/**
 * Four validators over real sockets, for longer than a test may take: how far finality is behind the best block, the stop and
 * return of one, and of two, without whom nothing may become final. `npm run soak:validators -- --blocks 200 --slot 3000`.
 */
import { parseArgs } from 'node:util';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { until } from '../support/until.ts';
import { directories, type Member, startMember } from './nodes.ts';

const { values } = parseArgs({
  options: { blocks: { type: 'string', default: '200' }, slot: { type: 'string', default: '3000' } },
});
const blocks = Number(values.blocks);
const slotDurationMs = Number(values.slot);
const NAMES = ['Alice', 'Bob', 'Charlie', 'Dave'];

const spec = presetSpec('local', { slotDurationMs });
const homes = await directories(4);
const members: (Member | undefined)[] = [];
const all = (): Member[] => members.filter((each) => each !== undefined);
const info = ({ node }: Member) => node.client.blocks.info();
const finalized = (): number => Math.min(...all().map((each) => info(each).finalized.number));
const start = async (i: number): Promise<void> => {
  const bootNodes = all().map(({ address }) => address);
  const options = { name: NAMES[i]!, spec, directory: homes.paths[i]!, authority: `//${NAMES[i]}`, bootNodes };
  members[i] = await startMember(options);
};
const stop = async (i: number): Promise<void> => {
  const member = members[i];
  members[i] = undefined;
  await member?.stop();
};
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Heights at which two nodes have different final blocks. */
const forks = (): number[] => {
  const out: number[] = [];
  for (let number = 0; number <= finalized(); number++) {
    const hashes = all().map(({ node }) => toHex(node.client.blocks.hashOf(number)!));
    if (new Set(hashes).size > 1) out.push(number);
  }
  return out;
};

try {
  for (let i = 0; i < 4; i++) await start(i);
  await until('finality begins', () => finalized() >= 2, 60);
  const lags: number[] = [];
  const from = finalized();
  while (finalized() < from + blocks) {
    for (const each of all()) lags.push(info(each).best.number - info(each).finalized.number);
    await wait(slotDurationMs / 3);
  }
  lags.sort((a, b) => a - b);

  await stop(3);
  const without = finalized();
  await wait(6 * slotDurationMs);
  const threeOfFour = finalized() - without;
  await start(3);
  await until('the returned one is level', () => info(members[3]!).finalized.number >= finalized() - 1, 60);

  await stop(2);
  await stop(3);
  await wait(2 * slotDurationMs);
  const halted = finalized();
  await wait(8 * slotDurationMs);
  const duringHalt = finalized() - halted;
  await Promise.all([start(2), start(3)]);
  const back = performance.now();
  await until('finality resumes', () => finalized() > halted, 120);
  const resumedMs = Math.round(performance.now() - back);
  await wait(4 * slotDurationMs);
  const report = {
    blocks,
    slotDurationMs,
    lag: { median: lags[lags.length >> 1], p95: lags[Math.floor(lags.length * 0.95)], most: lags.at(-1) },
    finalizedByThree: threeOfFour,
    finalizedByTwo: duringHalt,
    resumedMs,
    forks: forks(),
  };
  console.log(JSON.stringify(report));
  const good =
    report.lag.median! <= 2 && threeOfFour > 0 && duringHalt === 0 && resumedMs <= 10_000 && report.forks.length === 0;
  process.exitCode = good ? 0 : 1;
} finally {
  await Promise.allSettled(all().map((each) => each.stop()));
  await homes.remove();
}
