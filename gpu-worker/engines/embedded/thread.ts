/** The thread of one model: takes calls, runs them side by side, answers. */
import { parentPort, workerData } from 'node:worker_threads';
import { EngineError } from '../engine-error.ts';
import { ModelHost } from './host.ts';
import type { Call, Fault, FromThread, ThreadData, ThreadEvent, ToThread } from './remote.ts';

const port = parentPort!;
const post = (message: FromThread, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);
const faultOf = (error: unknown): Fault => ({
  code: error instanceof EngineError ? error.code : undefined,
  message: error instanceof Error ? error.message : String(error),
});

async function run(
  host: ModelHost,
  call: Call,
  signal: AbortSignal,
  emit: (event: ThreadEvent) => void,
  stored: () => Promise<void>,
): Promise<{ readonly value: unknown; readonly transfer?: ArrayBuffer[] }> {
  switch (call.type) {
    case 'openAdapter':
      return { value: await host.openAdapter(call.files) };
    case 'closeAdapter':
      return { value: await host.closeAdapter(call.adapter) };
    case 'train': {
      const value = await host.train(call.job, {
        signal,
        progress: (progress) => emit({ type: 'progress', progress }),
        checkpoint: (state, step) => {
          const done = stored();
          emit({ type: 'checkpoint', state, step });
          return done;
        },
      });
      return { value };
    }
    case 'generate': {
      const token: Parameters<ModelHost['generate']>[2]['token'] = (token) => emit({ type: 'token', token });
      return { value: await host.generate(call.request, call.adapter, { signal, token }) };
    }
    case 'loss':
      return { value: await host.loss(call.example, call.adapter) };
    case 'gradient': {
      const value = await host.gradient(call.example, call.adapter, call.scope);
      return { value, transfer: [value.gradient.buffer] };
    }
    case 'covariances':
      return { value: await host.covariances(call.examples, call.adapter, call.options, signal) };
    case 'close':
      return { value: await host.close() };
  }
}

async function main(): Promise<void> {
  const { directory, limits, counters } = workerData as ThreadData;
  let host: ModelHost;
  try {
    host = await ModelHost.open(directory, limits, new Float64Array(counters));
  } catch (error) {
    post({ type: 'unready', fault: faultOf(error) });
    return;
  }
  const running = new Map<number, { readonly controller: AbortController; stored: () => void }>();
  port.on('message', (message: ToThread) => {
    const { id } = message;
    const entry = running.get(id);
    if (message.type === 'cancel') entry?.controller.abort();
    else if (message.type === 'stored') entry?.stored();
    else {
      const controller = new AbortController();
      const own = { controller, stored: (): void => {} };
      running.set(id, own);
      const stored = (): Promise<void> => {
        const { promise, resolve } = Promise.withResolvers<void>();
        own.stored = resolve;
        return promise;
      };
      run(host, message.call, controller.signal, (event) => post({ type: 'event', id, event }), stored)
        .then(
          ({ value, transfer }) => post({ type: 'done', id, value }, transfer),
          (error: unknown) => post({ type: 'failed', id, fault: faultOf(error) }),
        )
        .finally(() => running.delete(id));
    }
  });
  post({ type: 'ready', info: host.info });
}

await main();
