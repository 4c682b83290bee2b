/** A worker in a process of its own, so that it can be killed: `node worker-process.ts JSON` with the settings below. */
import type { EngineChoice } from '../../gpu-worker/engines/choice.ts';
import { SHIPPED_MODEL, startWorker } from '../../gpu-worker/start.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { KeySigner } from '../../node/keystore/key-signer.ts';

export interface ProcessSettings {
  readonly node: string;
  readonly uri: string;
  readonly directory: string;
  readonly settleMs: number;
  readonly checkpointSteps: number;
  /** `embedded` where nothing is said. */
  readonly engine?: EngineChoice;
  readonly maxAdapters?: number;
}

const settings = JSON.parse(process.argv[2]!) as ProcessSettings;
const stop = new AbortController();
process.once('SIGTERM', () => stop.abort());
process.once('disconnect', () => process.exit(1));
process.channel?.unref();
const hashing = createHashing();
await startWorker(
  {
    node: settings.node,
    key: KeySigner.fromUri(settings.uri, hashing),
    directory: settings.directory,
    modelDirectory: SHIPPED_MODEL,
    engineChoice: settings.engine ?? 'embedded',
    telemetryPort: 0,
    licence: 'Apache-2.0',
    bond: 1_000n * 10n ** 18n,
    training: true,
    serving: true,
    auditing: false,
    maxAdapters: settings.maxAdapters ?? 8,
    settleMs: settings.settleMs,
    checkpointSteps: settings.checkpointSteps,
    hashing,
    signatures: await createSignatures(),
    log: (level, message) => process.stdout.write(`${level} ${message}\n`),
  },
  stop.signal,
);
