/** What came of a transaction that is in a block. */
import type { EventDef } from '../../runtime/framework/pallet.ts';
import { placeOf } from '../../runtime/framework/place.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { LedgerError } from './errors.ts';
import type { EventRecord } from './event-records.ts';

/** Fields of the events that are what a pallet defines. */
export function eventsOf<T>(records: readonly EventRecord[], definition: EventDef<T>): T[] {
  const { pallet, name } = placeOf(definition);
  const { codec } = definition;
  return records
    .filter((each) => each.pallet === pallet && each.name === name)
    .map(({ fields }) => (codec === null ? (undefined as T) : decode(codec, fields)));
}

export class Made {
  /** Hash of the block that holds it, in hex, and its place there. */
  readonly block: string;
  readonly index: number;
  /** The transaction's own hash, in hex, as explorers and wallets name it. */
  readonly hash: string;
  readonly records: readonly EventRecord[];

  constructor(parts: { block: string; index: number; hash: string; records: readonly EventRecord[] }) {
    this.block = parts.block;
    this.index = parts.index;
    this.hash = parts.hash;
    this.records = parts.records;
  }

  /** Fields of the first such event. Throws a LedgerError `NO_EVENT` where there is none. */
  event<T>(definition: EventDef<T>): T {
    const [found] = this.events(definition).map((fields) => ({ fields }));
    if (found === undefined) {
      const { pallet, name } = placeOf(definition);
      throw new LedgerError('NO_EVENT', `the transaction has no event ${pallet}.${name}`);
    }
    return found.fields;
  }

  /** Fields of every such event, in their order. */
  events<T>(definition: EventDef<T>): T[] {
    return eventsOf(this.records, definition);
  }
}
