/** A block that must not be imported: whoever made it broke a rule. */
export class InvalidBlock extends Error {
  readonly code:
    | 'BAD_EXTRINSIC'
    | 'BAD_PRE_DIGEST'
    /** The author of the slot was taken out of duty for an offence. */
    | 'AUTHOR_DISABLED'
    /** The author has not told the secret that it promised to the beacon. */
    | 'BAD_BEACON'
    | 'INHERENT_ORDER'
    | 'MISSING_INHERENT'
    | 'DIGEST_MISMATCH'
    | 'STATE_ROOT_MISMATCH'
    | 'EXTRINSICS_ROOT_MISMATCH'
    | 'WRONG_PARENT';
  constructor(code: InvalidBlock['code'], message: string) {
    super(message);
    this.code = code;
  }
}
