/** Which failures pass: the same work may go better later, here. */

import { LedgerError } from '../../rpc/client/errors.ts';
import { ConnectionLost } from '../../rpc/client/json-rpc.ts';
import { EngineError } from '../engines/engine-error.ts';

/** The node is away, files are not here yet, memory or disk ran out, the engine's process died once too often. */
export function isPassing(problem: unknown): boolean {
  if (problem instanceof LedgerError)
    return /^(NO_NODE|NOT_INCLUDED|UNKNOWN_OUTCOME|EXPIRED|INVALID|DROPPED|USURPED|BLOB_)/.test(problem.code);
  if (problem instanceof EngineError) return /^(OUT_OF_MEMORY|OVERLOADED|ENGINE_FAILED)$/.test(problem.code);
  // What `fetch` rejects with when nobody answers.
  if (problem instanceof ConnectionLost || problem instanceof TypeError) return true;
  return problem instanceof Error && 'code' in problem && /^(ENOSPC|EDQUOT|ENOMEM)$/.test(String(problem.code));
}
