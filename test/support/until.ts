/** Waiting in tests: for what must come about, however slow the machine is, and not for a time. */

type Found<T> = T | undefined | false;

/** Polls until `look` gives something; rejects with `what` after `seconds`. */
export async function until<T>(what: string, look: () => Found<T> | Promise<Found<T>>, seconds = 90): Promise<T> {
  for (const end = performance.now() + seconds * 1_000; performance.now() < end; ) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} did not come about in ${seconds} s`);
}
