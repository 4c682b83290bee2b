/** Which chain to build on: the longest on top of the finalized block; of equally long ones, the one seen first. */

export interface Head<H> {
  readonly hash: H;
  readonly number: number;
}

/** Whether a new head takes the place of the best one. Equal length does not: the first seen stays. */
export const overtakes = (candidate: Head<unknown>, best: Head<unknown>): boolean => candidate.number > best.number;

/**
 * The best of all heads, given in the order in which they were seen; the finalized block itself when nothing is built on it.
 * `descends` tells whether a head has the finalized block below it (or is it).
 */
export function bestHead<H>(
  heads: readonly Head<H>[],
  finalized: Head<H>,
  descends: (head: Head<H>) => boolean,
): Head<H> {
  let best = finalized;
  for (const head of heads) if (overtakes(head, best) && descends(head)) best = head;
  return best;
}

/** The blocks that lead from one head to another, when both are known back to where they part. */
export function routeBetween<H>(
  from: Head<H>,
  to: Head<H>,
  parent: (block: Head<H>) => Head<H> | undefined,
  same: (a: H, b: H) => boolean,
): { readonly retracted: readonly Head<H>[]; readonly enacted: readonly Head<H>[] } | undefined {
  const retracted: Head<H>[] = [];
  const enacted: Head<H>[] = [];
  let left: Head<H> | undefined = from;
  let right: Head<H> | undefined = to;
  while (left !== undefined && right !== undefined && !same(left.hash, right.hash)) {
    const [leftNumber, rightNumber]: [number, number] = [left.number, right.number];
    if (leftNumber >= rightNumber) {
      retracted.push(left);
      left = parent(left);
    }
    if (rightNumber >= leftNumber) {
      enacted.push(right);
      right = parent(right);
    }
  }
  if (left === undefined || right === undefined) return undefined;
  return { retracted, enacted: enacted.reverse() };
}
