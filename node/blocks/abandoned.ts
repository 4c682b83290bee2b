/** Abandoned blocks that somebody still looks at (JSON-RPC specification, `chainHead_v1_follow`, "Pinning"). */
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { Header } from '../../runtime/primitives/header.ts';
import type { Hash } from '../../runtime/primitives/types.ts';

/**
 * Which of the abandoned blocks stay for now: those that are held, and the abandoned blocks below them, whose states theirs
 * are made of. `above`: a fork that leaves the final chain at this height or below goes in any case, because the final
 * states there, which it shares nodes with, go too.
 */
export function staying(
  abandoned: readonly Hash[],
  header: (hash: Hash) => Header | undefined,
  isHeld: (hash: Hash) => boolean,
  above: number,
): ReadonlySet<string> {
  const names = new Set(abandoned.map(toHex));
  const kept = new Set<string>();
  for (const block of abandoned) {
    if (!isHeld(block)) continue;
    const branch: string[] = [];
    let lowest = 0;
    for (let at: Hash = block; names.has(toHex(at)); ) {
      const known = header(at);
      if (known === undefined) break;
      branch.push(toHex(at));
      lowest = known.number;
      at = known.parentHash as Hash;
    }
    if (lowest > above) for (const name of branch) kept.add(name);
  }
  return kept;
}
