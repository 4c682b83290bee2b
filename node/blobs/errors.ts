/** What can be wrong with a blob that is handed in or asked for. */
export type BlobErrorCode =
  /** The chain knows of no such blob. */
  | 'NOT_EXPECTED'
  | 'TOO_LARGE'
  | 'TRUNCATED'
  | 'WRONG_HASH'
  | 'TOO_SLOW'
  /** Others hand in too much at the same time. */
  | 'BUSY'
  /** The store's own bounds, or the disk's. */
  | 'STORE_FULL'
  | 'NOT_FOUND'
  | 'BAD_RANGE';

export class BlobError extends Error {
  readonly code: BlobErrorCode;
  constructor(code: BlobErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
