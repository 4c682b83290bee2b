/** The gateway as a client sees it: OpenAI's chat completions, streamed, with the attribution at the end. */

export class GatewayError extends Error {
  /** As the gateway names it (`model_not_found`, `insufficient_quota` …), or `NO_GATEWAY`. */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Amounts are decimal text in OPEN's smallest unit. */
export interface AnswerAttribution {
  /** The signed receipt in hex, its id, and who answered. */
  readonly receipt: string;
  readonly id: string;
  readonly worker: string;
  readonly adapter: number;
  readonly fee: string;
  readonly pool: string;
  /** Highest share first. */
  readonly contributors: readonly {
    readonly account: string;
    readonly share: number;
    readonly amount: string;
    readonly influence: string;
    readonly span_mass: string;
  }[];
}

export interface Question {
  readonly model: string;
  readonly question: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly apiKey?: string | undefined;
  /** Hears the answer as it comes. */
  delta?(text: string): void;
}

export interface Completion {
  readonly text: string;
  readonly attribution: AnswerAttribution;
}

interface Chunk {
  readonly choices?: readonly { readonly delta?: { readonly content?: string } }[];
  readonly attribution?: AnswerAttribution;
  readonly error?: { readonly code: string | null; readonly message: string };
}

/** Rejects with {@link GatewayError}. */
export async function complete(gateway: string, asked: Question): Promise<Completion> {
  const { model, question, maxTokens, temperature, apiKey } = asked;
  let response: Response;
  try {
    response = await fetch(`${gateway.replace(/\/$/, '')}/chat/completions`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
      },
      body: JSON.stringify({
        model,
        messages: [{ role: 'user', content: question }],
        max_tokens: maxTokens,
        temperature,
        stream: true,
      }),
    });
  } catch (problem) {
    throw new GatewayError('NO_GATEWAY', `no gateway answers at ${gateway}`, { cause: problem });
  }
  if (!response.ok || response.body === null) {
    const { error } = (await response.json().catch(() => ({}))) as Chunk;
    throw new GatewayError(error?.code ?? 'FAILED', error?.message ?? `the gateway answered ${response.status}`);
  }
  let text = '';
  let attribution: AnswerAttribution | undefined;
  for await (const { choices, attribution: told, error } of events(response.body)) {
    if (error !== undefined) throw new GatewayError(error.code ?? 'FAILED', error.message);
    const delta = choices?.[0]?.delta?.content ?? '';
    text += delta;
    if (delta !== '') asked.delta?.(delta);
    attribution = told ?? attribution;
  }
  if (attribution === undefined) throw new GatewayError('CUT_OFF', 'the answer ended without its receipt');
  return { text, attribution };
}

/** Data lines of a stream of server-sent events, up to `[DONE]`. */
async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<Chunk> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const part of body) {
    rest += decoder.decode(part, { stream: true });
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      const line = rest.slice(0, end).trim();
      rest = rest.slice(end + 1);
      if (!line.startsWith('data:')) continue;
      const data = line.slice('data:'.length).trim();
      if (data !== '[DONE]') yield JSON.parse(data) as Chunk;
    }
  }
}
