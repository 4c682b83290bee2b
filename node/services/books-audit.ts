/**
 * The auditor of the ledger's books: after every block, whether all accounts together have what the ledger says was issued.
 * It reads every account of every block, so it is for tests and for those who look for a fault, not for every day.
 */
import type { Hashing, Signatures } from '../../runtime/host.ts';
import { books } from '../../runtime/pallets/standard/balances.ts';
import { stateReader } from '../attribution/state-reader.ts';
import type { BlockRef, Blocks, ChainEvents, Service, States } from '../ports/chain.ts';

export class BooksError extends Error {
  readonly code = 'BOOKS_DO_NOT_BALANCE';
}

export interface BooksPorts {
  readonly blocks: Pick<Blocks, 'info'>;
  readonly events: ChainEvents;
  readonly states: Pick<States, 'at'>;
  readonly hashing: Hashing;
  readonly signatures: Signatures;
}

/** Rejects with {@link BooksError} at the first block whose books do not balance, on whichever fork. */
export function booksAudit({ blocks, events, states, hashing, signatures }: BooksPorts): Service {
  const faultIn = ({ hash, number }: BlockRef): BooksError | undefined => {
    const state = states.at(hash);
    if (state === undefined) return undefined;
    const { held, issued } = books(stateReader(state, hashing, signatures));
    return held === issued
      ? undefined
      : new BooksError(`after block ${number} all accounts together have ${held}, but ${issued} was issued`);
  };
  return {
    name: 'books',
    run: (signal) =>
      new Promise((resolve, reject) => {
        const end = (fault?: BooksError): void => {
          unsubscribe();
          if (fault === undefined) resolve();
          else reject(fault);
        };
        const check = (block: BlockRef): void => {
          const fault = faultIn(block);
          if (fault !== undefined) end(fault);
        };
        const unsubscribe = events.subscribe((event) => {
          if (event.type === 'imported') check(event.block);
        });
        signal.addEventListener('abort', () => end(), { once: true });
        check(blocks.info().best);
        if (signal.aborted) end();
      }),
  };
}
