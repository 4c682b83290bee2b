/** How an engine fails, whichever it is: one code for one cause. */

export type EngineErrorCode =
  /** Files of the model. */
  | 'MODEL_NOT_FOUND'
  | 'BAD_CONFIG'
  | 'UNSUPPORTED_MODEL'
  | 'BAD_TENSORS'
  | 'BAD_TOKENIZER'
  | 'BAD_TEMPLATE'
  /** Files of the adapter, or an adapter of another base. */
  | 'BAD_ADAPTER'
  | 'UNSUPPORTED_ADAPTER'
  | 'ADAPTER_CLOSED'
  /** Requests. */
  | 'BAD_SETTINGS'
  | 'BAD_EXAMPLE'
  | 'BAD_REQUEST'
  | 'PROMPT_TOO_LONG'
  | 'BAD_CHECKPOINT'
  /** The engine itself. */
  | 'OUT_OF_MEMORY'
  | 'OVERLOADED'
  | 'DIVERGED'
  | 'ENGINE_CLOSED'
  | 'ENGINE_FAILED';

export class EngineError extends Error {
  readonly code: EngineErrorCode;
  constructor(code: EngineErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'EngineError';
    this.code = code;
  }
}
