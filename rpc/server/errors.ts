/** What a caller is told: the codes of JSON-RPC 2.0, of jsonrpsee (which Substrate serves with) and of Substrate. */
import { PoolError, ReadError, RuntimeCallError } from '../../node/ports/chain.ts';

export class RpcError extends Error {
  readonly code: number;
  readonly data: unknown;
  constructor(code: number, message: string, data?: unknown) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

export const parseError = (): RpcError => new RpcError(-32700, 'Parse error');
export const invalidRequest = (why?: string): RpcError => new RpcError(-32600, 'Invalid request', why);
export const methodNotFound = (): RpcError => new RpcError(-32601, 'Method not found');
export const unsafeRefused = (): RpcError => new RpcError(-32601, 'RPC call is unsafe to be called externally');
export const invalidParams = (why: string): RpcError => new RpcError(-32602, 'Invalid params', why);
export const internalError = (): RpcError => new RpcError(-32603, 'Internal error');
export const tooManySubscriptions = (limit: number): RpcError =>
  new RpcError(-32006, 'Too many subscriptions on the connection', `Exceeded max limit of ${limit}`);
export const tooManyKeys = (): RpcError =>
  new RpcError(-32006, 'Too many subscriptions on the connection', 'more storage keys than one may follow');
export const requestTooBig = (limit: number): RpcError =>
  new RpcError(-32007, 'Request is too big', `Exceeded max limit of ${limit}`);
export const responseTooBig = (limit: number): RpcError =>
  new RpcError(-32008, 'Response is too big', `Exceeded max limit of ${limit}`);
export const busy = (): RpcError => new RpcError(-32009, 'Server is busy, try again later');
export const batchTooLong = (limit: number): RpcError =>
  new RpcError(-32010, 'The batch request was too large', `Exceeded max limit of ${limit}`);

export const tooExpensive = (why: string): RpcError => new RpcError(-32012, 'The request takes too long', why);

/** Substrate's `state` namespace; indexers look for the words " not found". */
export const unknownBlock = (hash: string): RpcError =>
  new RpcError(4003, `Client error: UnknownBlock: Header was not found in the database: ${hash}`);
export const discardedState = (hash: string): RpcError =>
  new RpcError(4003, `Client error: UnknownBlock: State already discarded for ${hash}`);

/** Whatever was thrown, as what may be told; undefined if it is a fault of this node. */
export function toRpcError(problem: unknown): RpcError | undefined {
  if (problem instanceof RpcError) return problem;
  if (problem instanceof PoolError) return new RpcError(problem.rpcCode, problem.message, problem.data);
  if (problem instanceof ReadError) return readError(problem);
  if (!(problem instanceof RuntimeCallError)) return undefined;
  switch (problem.code) {
    case 'UNKNOWN_BLOCK':
      return new RpcError(4003, `Client error: UnknownBlock: ${problem.message}`);
    case 'UNKNOWN_METHOD':
      return new RpcError(4003, `Client error: Execution failed: Exported method not found: ${problem.message}`);
    default:
      return new RpcError(4003, `Client error: Execution failed: ${problem.message}`);
  }
}

function readError({ code, message }: ReadError): RpcError {
  switch (code) {
    case 'UNKNOWN_BLOCK':
      return new RpcError(4003, `Client error: UnknownBlock: ${message}`);
    case 'TOO_LARGE':
      return new RpcError(-32008, 'Response is too big', message);
    case 'TOO_LONG':
      return tooExpensive(message);
    case 'OVERLOADED':
    case 'CLOSED':
      return busy();
  }
}
