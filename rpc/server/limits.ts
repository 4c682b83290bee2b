/** What callers may have of the node: by connection, by address, and in all. docs/security.md says what follows from them. */

export interface RpcLimits {
  readonly connections: number;
  /** Bytes of one message or body. */
  readonly request: number;
  /** Characters of one answer. */
  readonly response: number;
  /** Requests in one batch. */
  readonly batch: number;
  /** Per connection. */
  readonly subscriptions: number;
  /** Requests of one connection that wait for their answers. */
  readonly pending: number;
  /** Bytes that a caller may leave unread before it is cut off. */
  readonly buffered: number;
  /** Bytes of answers that all callers together may leave unread: then those who read least are cut off. */
  readonly unread: number;
  /** Bytes of large requests that may be on their way in, over all connections. */
  readonly arriving: number;
  /** How long a caller may take nothing of an answer, and send nothing of a request, in milliseconds. */
  readonly stallMs: number;
}

const MIB = 1024 * 1024;
export const RPC_LIMITS: RpcLimits = {
  connections: 500,
  request: 15 * MIB,
  response: 16 * MIB,
  batch: 1_000,
  subscriptions: 1_024,
  pending: 4_096,
  buffered: 24 * MIB,
  unread: 64 * MIB,
  arriving: 32 * MIB,
  stallMs: 20_000,
};

/** From so many unread bytes on no further request of the connection is read, and no further call begun. */
export const PAUSE_AT = MIB;
/** Bytes of messages that wait for their turn before no more are read, and what each counts beside its own length. */
export const MAX_WAITING = 256 * 1024;
export const MESSAGE_COST = 1_024;
/** Requests behind each other on one HTTP connection that wait for the answers before theirs; nobody needs more than a few. */
export const MAX_PIPELINED = 32;
/** Pings and pongs of one WebSocket between two pings of the node. */
export const MAX_CONTROL_FRAMES = 1_000;
/** Requests up to this size always have room. */
export const SMALL_REQUEST = 65_536;

/** What each connection has for sure, what it may have, and what all have beyond. */
export const SHARES = {
  subscriptions: { sure: 32, shared: 4_096 },
  /** Bytes of followed storage keys. */
  watched: { sure: 65_536, most: 8 * MIB, shared: 48 * MIB },
  /** Blocks pinned by followers; finality that lags makes them many. */
  pinned: { sure: 2_048, most: 65_536, shared: 262_144 },
} as const;
