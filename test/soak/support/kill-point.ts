/**
 * Loaded before a node (`--import 'kill-point.ts?what=vote&at=marked&count=3'`): ends its process by SIGKILL around a durable
 * write, which no clock of another process could hit. Nothing of the node runs after the moment that `at` names.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { Level } from 'level';
import { decodeRecord } from '../../../consensus/grandpa/record.ts';
import { COLUMN } from '../../../node/database/database.ts';
import { startsWith, utf8 } from '../../../runtime/primitives/bytes.ts';

/** A vote of its own, the slot of a block of its own, a block from anywhere, a finalization. */
export const WRITES = ['vote', 'slot', 'block', 'final'] as const;
/** Not asked for yet; under way; done, but not marked in the watermark; all durable and nothing sent; about to be sent. */
export const MOMENTS = ['before', 'during', 'written', 'marked', 'sent'] as const;

export interface KillPoint {
  readonly what: (typeof WRITES)[number];
  readonly at: (typeof MOMENTS)[number];
  /** How many such writes there are to be, that one included. */
  readonly count: number;
}

/** As an option of Node itself. */
export const importOf = ({ what, at, count }: KillPoint): string[] => [
  '--import',
  `${import.meta.url.split('?')[0]}?what=${what}&at=${at}&count=${count}`,
];

interface Operation {
  readonly key: Uint8Array;
  readonly value?: Uint8Array;
}
type Write = (operations: readonly Operation[], options: { readonly sync?: boolean }) => Promise<void>;

const under = (column: number, name = ''): Uint8Array => Uint8Array.of(column, ...utf8(name));
const VOTER = under(COLUMN.consensus, 'grandpa/voter');
const has = (operations: readonly Operation[], prefix: Uint8Array): boolean =>
  operations.some(({ key, value }) => value !== undefined && startsWith(key, prefix));

const IS: Readonly<Record<KillPoint['what'], (operations: readonly Operation[]) => boolean>> = {
  vote: (operations) =>
    operations.some(
      ({ key, value }) => value !== undefined && startsWith(key, VOTER) && decodeRecord(value).own.length > 0,
    ),
  slot: (operations) => has(operations, under(COLUMN.consensus, 'aura/last-slot')),
  block: (operations) => has(operations, under(COLUMN.headers)) && !has(operations, under(COLUMN.consensus)),
  final: (operations) => has(operations, under(COLUMN.justifications)),
};

const die = (): void => {
  process.kill(process.pid, 'SIGKILL');
};

/** The other threads go on meanwhile, LevelDB's among them. */
function spin(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

function arm({ what, at, count }: KillPoint): void {
  const prototype = Level.prototype as unknown as { batch: Write };
  const { batch } = prototype;
  const { writeSync } = fs;
  let left = count;
  let isWritten = false;
  prototype.batch = function (this: typeof prototype, operations, options) {
    if (!IS[what](operations) || --left > 0) return batch.call(this, operations, options);
    if (at === 'before') die();
    const done = batch.call(this, operations, options);
    if (at === 'during') {
      spin(2 * Math.random());
      die();
    }
    return done.then(() => {
      if (at === 'written') die();
      isWritten = true;
      if (at === 'sent' || options.sync !== true) setTimeout(die, 3 * Math.random());
    });
  };
  Object.assign(fs, {
    writeSync: (...args: Parameters<typeof writeSync>) => {
      const bytes = writeSync(...args);
      if (at === 'marked' && isWritten) die();
      return bytes;
    },
  });
  syncBuiltinESMExports();
}

const { searchParams } = new URL(import.meta.url);
const what = WRITES.find((each) => each === searchParams.get('what'));
const at = MOMENTS.find((each) => each === searchParams.get('at'));
if (what !== undefined && at !== undefined) arm({ what, at, count: Number(searchParams.get('count')) });
