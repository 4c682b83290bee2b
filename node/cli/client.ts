/** What commands that talk to a ledger have in common: the connection, the flags, results for people and for programs. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Ledger } from '../../rpc/client/ledger.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { withKeyFlags, withNodeFlag } from './options.ts';

export interface ClientFlags {
  readonly node: string;
  readonly json?: boolean;
}
export interface SignerFlags extends ClientFlags {
  readonly key: string;
  readonly passwordFile?: string;
}

export const withClientFlags = (command: Command): Command =>
  withNodeFlag(command).addOption(new Option('--json', 'the result for programs'));
export const withSignerFlags = (command: Command): Command => withKeyFlags(withClientFlags(command));

/** Connects, runs, and disconnects. Rejects with `NO_NODE` when nobody answers. */
export async function withLedger<T>(node: string, run: (ledger: Ledger) => Promise<T>): Promise<T> {
  const { Ledger } = await import('../../rpc/client/ledger.ts');
  const ledger = await Ledger.connect(node);
  try {
    return await run(ledger);
  } finally {
    ledger.close();
  }
}

export { addressOf } from '../../rpc/client/address.ts';

/** Prints one or the other; in JSON amounts are decimal text in the smallest unit, bytes are hex. */
export function print({ json }: ClientFlags, value: unknown, forPeople: () => string): void {
  process.stdout.write(json ? `${JSON.stringify(plain(value), undefined, 2)}\n` : `${forPeople()}\n`);
}

function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, plain(each)]));
}

/** The number of a Datanet, a batch, an order … */
export function id(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value > 0xffffffff) throw new InvalidArgumentError('a number from 0 on');
  return value;
}

/** 0 … 1, also as `80%`. */
export function part(text: string): number {
  const value = text.endsWith('%') ? Number(text.slice(0, -1)) / 100 : Number(text);
  if (!(value >= 0 && value <= 1)) throw new InvalidArgumentError('a part such as 0.8 or 80%');
  return value;
}
