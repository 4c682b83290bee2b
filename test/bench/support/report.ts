/** What a bench found: a table for people, and `bench-results/<bench>.json` for whoever compares. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** What it has to be at least (`>=`) or at most (`<=`). */
  readonly bar?: readonly ['>=' | '<=', number];
}

export interface Report {
  readonly bench: string;
  readonly at: string;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly figures: readonly Figure[];
  readonly details: unknown;
}

const DIRECTORY = fileURLToPath(new URL('../../../bench-results/', import.meta.url));

export const meets = ({ value, bar }: Figure): boolean =>
  bar === undefined || (bar[0] === '>=' ? value >= bar[1] : value <= bar[1]);

const rounded = (value: number): number => (Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3)));

export function printFigures(rows: readonly (Figure & { readonly bench?: string })[]): void {
  console.table(
    rows.map((row) => ({
      ...(row.bench !== undefined && { bench: row.bench }),
      what: row.what,
      value: rounded(row.value),
      unit: row.unit,
      bar: row.bar === undefined ? '' : row.bar.join(' '),
      met: row.bar === undefined ? '' : meets(row) ? 'yes' : 'NO',
    })),
  );
}

export async function report(bench: string, figures: readonly Figure[], details: unknown = undefined): Promise<void> {
  const whole: Report = {
    bench,
    at: new Date().toISOString(),
    machine: {
      cores: availableParallelism(),
      processor: cpus()[0]?.model ?? 'unknown',
      memoryGb: Math.round(totalmem() / 2 ** 30),
      loadAverage: rounded(loadavg()[0] ?? 0),
      node: process.version,
    },
    figures,
    details,
  };
  printFigures(figures);
  await mkdir(DIRECTORY, { recursive: true });
  await writeFile(join(DIRECTORY, `${bench}.json`), `${JSON.stringify(whole, undefined, 2)}\n`);
}

export const readReport = async (bench: string): Promise<Report> =>
  JSON.parse(await readFile(join(DIRECTORY, `${bench}.json`), 'utf8')) as Report;
