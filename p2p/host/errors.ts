/** `code` says which expected failure of the network it is. */
export class NetworkError extends Error {
  readonly code:
    | 'BAD_ADDRESS'
    | 'BAD_KEY_FILE'
    | 'KNOWN_PEERS'
    | 'LISTEN'
    | 'TOO_LARGE'
    | 'MALFORMED'
    | 'TIMEOUT'
    | 'CLOSED'
    | 'REFUSED'
    | 'BUSY'
    | 'BANNED';
  constructor(code: NetworkError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
