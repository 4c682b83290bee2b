/** A line on the chain's progress for whoever watches the log. */

import type { Log } from '../consensus/ports.ts';
import { toHex } from '../runtime/primitives/bytes.ts';
import type { Client, Service } from './client.ts';

const EVERY_MS = 10_000;

export function informant({ blocks, events, pool }: Client, log: Log): Service {
  return {
    name: 'informant',
    run: (signal) =>
      new Promise((resolve) => {
        const unsubscribe = events.subscribe((event) => {
          if (event.type !== 'imported' || !event.isNewBest) return;
          const { number, hash } = event.block;
          const extrinsics = blocks.body(hash)?.length ?? 0;
          log('debug', `block #${number}`, { hash: toHex(hash), origin: event.origin, extrinsics });
        });
        const timer = setInterval(() => {
          const { best, finalized } = blocks.info();
          const { ready, future } = pool.status();
          log('info', `best #${best.number}, finalized #${finalized.number}, ready ${ready}, future ${future}`);
        }, EVERY_MS);
        const stop = () => {
          clearInterval(timer);
          unsubscribe();
          resolve();
        };
        if (signal.aborted) stop();
        else signal.addEventListener('abort', stop, { once: true });
      }),
  };
}
