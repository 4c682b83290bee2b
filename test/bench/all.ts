/**
 * `npm run bench`: one bench after the other, each in a process of its own, then all figures against their bars.
 * `npm run bench -- --quick` takes minutes in place of half an hour; `npm run bench -- transfers trie` only those.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { meets, printFigures, readReport } from './support/report.ts';

interface Bench {
  readonly name: string;
  /** Where it lies, if not under its name. */
  readonly file?: string;
  readonly full: readonly string[];
  readonly quick: readonly string[];
}

const BENCHES: readonly Bench[] = [
  { name: 'start', full: [], quick: ['--idle', '10'] },
  { name: 'command', full: [], quick: [] },
  { name: 'rpc', full: [], quick: ['--seconds', '2'] },
  { name: 'transfers', full: ['--seconds', '60'], quick: ['--seconds', '15'] },
  { name: 'trie', full: [], quick: ['--largest', '100000'] },
  { name: 'crypto', full: [], quick: [] },
  { name: 'pool', full: [], quick: [] },
  { name: 'attribution-verify', file: 'attribution/verify', full: [], quick: [] },
  { name: 'attribution-share', file: 'attribution/share', full: [], quick: ['--answers', '4', '--batch', '4'] },
  { name: 'day', full: [], quick: ['--blocks', '1800'] },
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false } },
});
const unknown = positionals.filter((each) => !BENCHES.some(({ name }) => name === each));
if (unknown.length > 0) throw new Error(`no bench is called ${unknown.join(', ')}`);
const chosen = BENCHES.filter(({ name }) => positionals.length === 0 || positionals.includes(name));

const run = ({ name, file: path = name, full, quick }: Bench): Promise<number> =>
  new Promise((resolve, reject) => {
    console.log(`\n== ${name}`);
    const file = fileURLToPath(new URL(`./${path}.ts`, import.meta.url));
    const child = spawn(process.execPath, [file, ...(values.quick ? quick : full)], {
      stdio: 'inherit',
    });
    child.once('error', reject).once('exit', (code) => resolve(code ?? 1));
  });

const failed: string[] = [];
const rows = [];
for (const bench of chosen) {
  if ((await run(bench)) !== 0) failed.push(bench.name);
  else rows.push(...(await readReport(bench.name)).figures.map((each) => ({ bench: bench.name, ...each })));
}
console.log('\n== all');
printFigures(rows);
const missed = rows.filter((each) => !meets(each)).length;
console.log(`${rows.length} figures, ${missed} below their bar; failed: ${failed.join(', ') || 'none'}`);
if (failed.length > 0) process.exitCode = 1;
