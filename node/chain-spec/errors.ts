export class ChainSpecError extends Error {
  readonly code:
    | 'NOT_JSON'
    /** A field is missing or not what it should be; the message begins with its path. */
    | 'BAD_FIELD'
    | 'UNKNOWN_FIELD'
    /** Neither the name of a built-in chain nor a file. */
    | 'UNKNOWN_CHAIN'
    | 'IO';
  constructor(code: ChainSpecError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export const badField = (path: string, expected: string): ChainSpecError =>
  new ChainSpecError('BAD_FIELD', `${path} should be ${expected}`);
