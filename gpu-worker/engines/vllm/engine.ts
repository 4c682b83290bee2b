/**
 * A vLLM server as the generator, where one GPU is not enough (NVIDIA Dynamo or any balancer may stand in front of several): answers
 * come from it by OpenAI's completions API with token ids both ways; training, losses and gradients stay with the engine
 * behind, so that attribution is what it is elsewhere.
 *
 * The server must run the same base model with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=true`, answer
 * `return_token_ids`, and see the directory that adapters are written to under the same path.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type {
  Adapter,
  AdapterFiles,
  Engine,
  EngineMetrics,
  FinishReason,
  Generation,
  GenerationHooks,
  GenerationRequest,
  LoadedModel,
  LoraSettings,
  ServingLimits,
} from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { GenerationState } from '../generation.ts';
import { checkedLimits } from '../open-models.ts';
import type { StreamingTokenizer } from '../text/tokenizer.ts';
import { events } from './events.ts';

export interface VllmOptions {
  /** `http://…`, without `/v1`. */
  readonly url: string;
  /** What the server calls the base model (default: the first that it lists). */
  readonly model?: string;
  /** Adapters are written here for the server to read. */
  readonly adapters: string;
  /** Trains and takes gradients. */
  readonly behind: Engine;
  /** Sent as a bearer token. */
  readonly apiKey?: string;
  /** Times that a request is made again before its first token, when the server cannot be reached (default 3). */
  readonly attempts?: number;
}

const LIMITS: ServingLimits = { batch: 64, queue: 256 };
const REACH_MS = 10_000;

export class VllmEngine implements Engine {
  readonly kind = 'vllm';
  readonly exact = false;
  readonly #options: VllmOptions;

  constructor(options: VllmOptions) {
    this.#options = { ...options, url: options.url.replace(/\/+$/, '') };
  }

  /** `ENGINE_FAILED` when the server cannot be reached or does not serve the model. */
  async load(
    directory: string,
    options: { readonly serving?: Partial<ServingLimits>; readonly signal?: AbortSignal } = {},
  ): Promise<LoadedModel> {
    const limits = checkedLimits({ ...LIMITS, ...options.serving });
    const server = new VllmServer(this.#options);
    const name = await server.baseModel();
    const model = await this.#options.behind.load(directory, options);
    return vllmModel(model, server, name, limits, this.#options.adapters);
  }

  async close(): Promise<void> {
    await this.#options.behind.close();
  }
}

/** What is asked of the server. */
class VllmServer {
  readonly #options: VllmOptions;

  constructor(options: VllmOptions) {
    this.#options = options;
  }

  async baseModel(): Promise<string> {
    const response = await this.#fetch('/v1/models', undefined, AbortSignal.timeout(REACH_MS));
    const { data } = (await response.json()) as { data?: { id?: unknown }[] };
    const names = (data ?? []).map(({ id }) => id);
    const { model = names[0] } = this.#options;
    if (typeof model !== 'string' || !names.includes(model)) {
      throw new EngineError('ENGINE_FAILED', `${this.#options.url} serves ${names.join(', ') || 'nothing'}`);
    }
    return model;
  }

  async load(name: string, path: string): Promise<void> {
    await this.#fetch('/v1/load_lora_adapter', { lora_name: name, lora_path: path });
  }

  async unload(name: string): Promise<void> {
    await this.#fetch('/v1/unload_lora_adapter', { lora_name: name });
  }

  /** Token ids as they come; the reason it ended for comes last. */
  async *complete(body: Record<string, unknown>, signal: AbortSignal): AsyncGenerator<number[] | string> {
    const response = await this.#fetch('/v1/completions', { ...body, stream: true, return_token_ids: true }, signal);
    if (response.body === null) throw new EngineError('ENGINE_FAILED', 'the server sent no answer');
    for await (const data of events(response.body)) {
      if (data === '[DONE]') return;
      const { choices, error } = JSON.parse(data) as { choices?: Choice[]; error?: { message?: unknown } };
      if (error !== undefined) throw new EngineError('ENGINE_FAILED', String(error.message ?? 'the server failed'));
      const [choice] = choices ?? [];
      if (choice === undefined) continue;
      const { token_ids: ids, finish_reason: finish, text } = choice;
      if (ids == null && text !== undefined && text !== '') {
        throw new EngineError('ENGINE_FAILED', 'the server does not tell token ids (return_token_ids): it is too old');
      }
      if (ids != null) yield ids;
      if (typeof finish === 'string') yield finish;
    }
  }

  async #fetch(path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const { url, apiKey, attempts = 3 } = this.#options;
    for (let attempt = 1; ; attempt++) {
      let response: Response;
      try {
        response = await fetch(`${url}${path}`, {
          method: body === undefined ? 'GET' : 'POST',
          headers: {
            'content-type': 'application/json',
            ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
          },
          ...(body !== undefined && { body: JSON.stringify(body) }),
          ...(signal !== undefined && { signal }),
        });
      } catch (problem) {
        if (signal?.aborted === true && path === '/v1/completions') throw signal.reason;
        if (attempt >= attempts) {
          throw new EngineError('ENGINE_FAILED', `${url} cannot be reached`, { cause: problem });
        }
        await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** attempt));
        continue;
      }
      if (response.ok) return response;
      const said = (await response.text()).slice(0, 300);
      if (response.status === 429 || response.status === 503) throw new EngineError('OVERLOADED', said);
      const code = response.status === 400 ? 'BAD_REQUEST' : 'ENGINE_FAILED';
      throw new EngineError(code, `${path}: ${response.status} ${said}`);
    }
  }
}

interface Choice {
  readonly token_ids?: number[] | null;
  readonly text?: string;
  readonly finish_reason?: string | null;
}

/** An adapter of the engine behind, and its name with the server once a generation asked for it. */
class VllmAdapter implements Adapter {
  readonly lora: LoraSettings;
  readonly bytes: number;
  readonly inner: Adapter;
  readonly files: AdapterFiles;
  readonly #server: VllmServer;
  readonly #directory: string;
  readonly #name = `openledger-${randomBytes(8).toString('hex')}`;
  #loaded: Promise<string> | undefined;

  constructor(inner: Adapter, files: AdapterFiles, server: VllmServer, directory: string) {
    this.inner = inner;
    this.lora = inner.lora;
    this.bytes = inner.bytes;
    this.files = files;
    this.#server = server;
    this.#directory = directory;
  }

  /** Checkpoints are opened too, and never generate: only what is asked for goes to the server. */
  name(): Promise<string> {
    this.#loaded ??= this.#load().catch((problem: unknown) => {
      this.#loaded = undefined;
      throw problem;
    });
    return this.#loaded;
  }

  async #load(): Promise<string> {
    const path = join(this.#directory, this.#name);
    await mkdir(path, { recursive: true });
    await writeFile(join(path, 'adapter_config.json'), this.files.config);
    await writeFile(join(path, 'adapter_model.safetensors'), this.files.weights);
    await this.#server.load(this.#name, path);
    return this.#name;
  }

  async close(): Promise<void> {
    await this.inner.close();
    const name = await this.#loaded?.catch(() => undefined);
    if (name === undefined) return;
    this.#loaded = undefined;
    // A server that is gone has forgotten it.
    await this.#server.unload(name).catch(() => {});
    await rm(join(this.#directory, name), { recursive: true, force: true });
  }
}

function vllmModel(
  behind: LoadedModel,
  server: VllmServer,
  baseName: string,
  limits: ServingLimits,
  directory: string,
): LoadedModel {
  const tokenizer = behind.tokenizer as StreamingTokenizer;
  const counts = { active: 0, generated: 0, prompt: 0 };
  const closing = new AbortController();
  const inner = (adapter: Adapter): Adapter => {
    if (adapter instanceof VllmAdapter) return adapter.inner;
    throw new EngineError('BAD_ADAPTER', 'an adapter of another model');
  };

  async function generate(request: GenerationRequest, hooks: GenerationHooks = {}): Promise<Generation> {
    if (closing.signal.aborted) throw new EngineError('ENGINE_CLOSED', 'the model is closed');
    const { adapter, prompt, temperature, topP, seed, maxTokens } = request;
    const state = new GenerationState(tokenizer, request, behind.info.maxPositions, hooks);
    if (prompt.length === 0) throw new EngineError('BAD_REQUEST', 'the prompt has no token');
    if (prompt.length >= behind.info.maxPositions) {
      throw new EngineError('PROMPT_TOO_LONG', `${prompt.length} tokens`);
    }
    if (!Number.isInteger(maxTokens) || maxTokens < 1) throw new EngineError('BAD_REQUEST', `maxTokens ${maxTokens}`);
    if (counts.active >= limits.batch + limits.queue) throw new EngineError('OVERLOADED', 'too many requests');
    const ended = new AbortController();
    const signals = [ended.signal, closing.signal, ...(hooks.signal === undefined ? [] : [hooks.signal])];
    const signal = AbortSignal.any(signals);
    if (signal.aborted) return state.result();
    let finish: FinishReason = 'aborted';
    counts.active++;
    try {
      const model = adapter === undefined ? baseName : await nameOf(adapter);
      const body = {
        ...{ model, prompt, temperature, max_tokens: state.limit, top_p: topP, stop_token_ids: tokenizer.eos },
        ...{ skip_special_tokens: false, add_special_tokens: false },
        // Its seeds are signed.
        seed: Number(BigInt.asUintN(53, seed)),
      };
      counts.prompt += prompt.length;
      for await (const piece of server.complete(body, signal)) {
        if (typeof piece === 'string') {
          finish = piece === 'length' ? 'length' : 'stop';
          continue;
        }
        for (const id of piece) {
          if (!state.isOver) counts.generated++;
          if (state.push(id)) ended.abort();
        }
      }
      if (!state.isOver && finish === 'aborted') {
        throw new EngineError('ENGINE_FAILED', 'the server ended its answer early');
      }
    } catch (problem) {
      if (!signal.aborted) throw problem;
    } finally {
      counts.active--;
      // What a hook threw ends the request with the server as well.
      ended.abort();
    }
    return state.result(finish);
  }

  const nameOf = (adapter: Adapter): Promise<string> => {
    inner(adapter);
    return (adapter as VllmAdapter).name();
  };

  return {
    info: behind.info,
    tokenizer,
    async openAdapter(files) {
      return new VllmAdapter(await behind.openAdapter(files), files, server, directory);
    },
    train: (job, hooks) => behind.train(job, hooks),
    generate,
    losses: (examples, adapter, signal) => behind.losses(examples, adapter && inner(adapter), signal),
    layout: (lora, options) => behind.layout(lora, options),
    gradients: (examples, adapter, options) => behind.gradients(examples, inner(adapter), options),
    covariances: (examples, adapter, options) => behind.covariances(examples, inner(adapter), options),
    ...(behind.openFeatures !== undefined && {
      async openFeatures(bases) {
        const reader = await behind.openFeatures!(bases);
        return {
          projected: (examples, adapter, options) => reader.projected(examples, inner(adapter), options),
          close: () => reader.close(),
        };
      },
    }),
    ...(behind.fitFeatures !== undefined && {
      fitFeatures: (examples, adapter, settings, hooks) =>
        behind.fitFeatures!(examples, inner(adapter), settings, hooks),
    }),
    metrics(): EngineMetrics {
      const { active, generated, prompt } = counts;
      return { ...behind.metrics(), active, waiting: 0, generatedTokens: generated, promptTokens: prompt };
    },
    async close() {
      closing.abort();
      await behind.close();
    },
  };
}
