/** OpenAI's API as far as it is served here: requests parsed at the edge, errors in its words. */
import {
  MAX_MESSAGES,
  MAX_PROMPT_BYTES,
  MAX_STOPS,
  type RequestInput,
} from '../../runtime/primitives/attribution/request.ts';

export class ApiError extends Error {
  readonly status: number;
  readonly type: string;
  readonly code: string | null;
  readonly param: string | null;
  constructor(status: number, type: string, code: string | null, message: string, param: string | null = null) {
    super(message);
    this.status = status;
    this.type = type;
    this.code = code;
    this.param = param;
  }
  get body() {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.code } };
  }
}

export const notServed = (model: string): ApiError =>
  new ApiError(404, 'invalid_request_error', 'model_not_found', `the model ${model} is not served here`, 'model');

const bad = (param: string, message: string): ApiError =>
  new ApiError(400, 'invalid_request_error', 'invalid_value', `${param}: ${message}`, param);

export interface CompletionRequest {
  readonly model: string;
  readonly input: RequestInput;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed: bigint | undefined;
  readonly stop: string[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

const DEFAULT_MAX_TOKENS = 96;

type Body = Readonly<Record<string, unknown>>;

function number(body: Body, name: string, fallback: number, least: number, most: number): number {
  const value = body[name] ?? fallback;
  if (typeof value !== 'number' || !(value >= least && value <= most))
    throw bad(name, `a number from ${least} to ${most}`);
  return value;
}

function content(value: unknown, param: string): string {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) {
    return value
      .map((part: { type?: unknown; text?: unknown }) => {
        if (part?.type !== 'text' || typeof part.text !== 'string') throw bad(param, 'only text is understood here');
        return part.text;
      })
      .join('');
  }
  throw bad(param, 'text is missing');
}

function messages(body: Body): RequestInput {
  const list = body.messages;
  if (!Array.isArray(list) || list.length === 0 || list.length > MAX_MESSAGES) {
    throw bad('messages', `between 1 and ${MAX_MESSAGES} messages`);
  }
  const value = list.map((each: { role?: unknown; content?: unknown }, at) => {
    const param = `messages[${at}]`;
    const role = each?.role === 'developer' ? 'system' : each?.role;
    if (role !== 'system' && role !== 'user' && role !== 'assistant')
      throw bad(`${param}.role`, 'system, user or assistant');
    return { role, content: content(each.content, `${param}.content`) };
  });
  return { type: 'Chat', value };
}

function stops(body: Body): string[] {
  const value = body.stop ?? [];
  const list = typeof value === 'string' ? [value] : value;
  const good =
    Array.isArray(list) &&
    list.length <= MAX_STOPS &&
    list.every((each) => typeof each === 'string' && each !== '' && each.length <= 64);
  if (!good) throw bad('stop', `at most ${MAX_STOPS} texts of at most 64 characters`);
  return list as string[];
}

/** `kind`: which endpoint. Throws {@link ApiError}. */
export function parseCompletion(body: unknown, kind: 'chat' | 'text'): CompletionRequest {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw bad('body', 'a JSON object');
  const fields = body as Body;
  if (typeof fields.model !== 'string' || fields.model === '') throw bad('model', 'the name of an adapter');
  if ((fields.n ?? 1) !== 1) throw bad('n', 'one answer a request');
  for (const each of ['tools', 'functions', 'audio', 'logit_bias'] as const) {
    if (fields[each] !== undefined && fields[each] !== null) throw bad(each, 'not served here');
  }
  let input: RequestInput;
  if (kind === 'chat') input = messages(fields);
  else if (typeof fields.prompt === 'string') input = { type: 'Text', value: fields.prompt };
  else throw bad('prompt', 'one text');
  const bytes = Buffer.byteLength(JSON.stringify(input.value));
  if (bytes > MAX_PROMPT_BYTES) throw bad(kind === 'chat' ? 'messages' : 'prompt', `at most ${MAX_PROMPT_BYTES} bytes`);
  const limit = fields.max_completion_tokens ?? fields.max_tokens ?? DEFAULT_MAX_TOKENS;
  if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1 || limit > 4096)
    throw bad('max_tokens', 'between 1 and 4096');
  const { seed } = fields;
  if (seed !== undefined && seed !== null && !Number.isSafeInteger(seed)) throw bad('seed', 'an integer');
  const options = fields.stream_options as { include_usage?: unknown } | null | undefined;
  return {
    model: fields.model,
    input,
    maxTokens: limit,
    temperature: number(fields, 'temperature', 1, 0, 2),
    topP: number(fields, 'top_p', 1, 0, 1),
    seed: typeof seed === 'number' ? BigInt.asUintN(64, BigInt(seed)) : undefined,
    stop: stops(fields),
    stream: fields.stream === true,
    includeUsage: options?.include_usage === true,
  };
}
