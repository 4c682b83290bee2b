/** The parts of a node while it runs. */
import type { Service } from '../ports/chain.ts';

export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });

/** Runs until the signal; when one part fails, all are stopped and its error comes out. */
export async function runAll(
  services: readonly Service[],
  signal: AbortSignal,
  close: () => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const until = AbortSignal.any([signal, stop.signal]);
  const runs = services.map((service) =>
    service.run(until).catch((problem: unknown) => {
      stop.abort();
      throw problem;
    }),
  );
  const results = await Promise.allSettled(runs);
  await close();
  const failed = results.find((each) => each.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
