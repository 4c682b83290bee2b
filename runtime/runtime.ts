/** The OpenLedger runtime: its pallets, its transaction extensions, its APIs. What the ledger is, on one page. */
import { standardApis } from './apis.ts';
import { Execution } from './executive/execution.ts';
import { Executive } from './executive/executive.ts';
import { queuesOf } from './executive/hooks.ts';
import { extensions } from './extensions.ts';
import { type AnyPallet, type Assembly, assemble, outerCall } from './framework/assembly.ts';
import { DispatchFailure } from './framework/dispatch.ts';
import type { RuntimeApi } from './framework/pallet.ts';
import type { GenesisConfig } from './genesis.ts';
import type { Host } from './host.ts';
import { metadataDigest } from './metadata/digest.ts';
import { describe, filledIn, type MetadataTemplate, type MetadataVersion, metadata } from './metadata/metadata.ts';
import { attribution } from './pallets/ledger/attribution.ts';
import { audits } from './pallets/ledger/audits.ts';
import { beacon } from './pallets/ledger/beacon.ts';
import { blobs } from './pallets/ledger/blobs.ts';
import { commitments } from './pallets/ledger/commitments.ts';
import { compute } from './pallets/ledger/compute.ts';
import { datanets } from './pallets/ledger/datanets.ts';
import { inference } from './pallets/ledger/inference.ts';
import { models } from './pallets/ledger/models.ts';
import { aura } from './pallets/standard/aura.ts';
import { authorship } from './pallets/standard/authorship.ts';
import { balances } from './pallets/standard/balances.ts';
import { convictionVoting } from './pallets/standard/conviction-voting.ts';
import { governance } from './pallets/standard/governance.ts';
import { grandpa } from './pallets/standard/grandpa.ts';
import { historical } from './pallets/standard/historical.ts';
import { multisig } from './pallets/standard/multisig.ts';
import { offences } from './pallets/standard/offences.ts';
import { proxy } from './pallets/standard/proxy.ts';
import { session } from './pallets/standard/session.ts';
import { manager, staking } from './pallets/standard/staking.ts';
import { sudo } from './pallets/standard/sudo.ts';
import { SS58_PREFIX, system } from './pallets/standard/system.ts';
import { timestamp } from './pallets/standard/timestamp.ts';
import { transactionPayment } from './pallets/standard/transaction-payment.ts';
import { treasury } from './pallets/standard/treasury.ts';
import { utility } from './pallets/standard/utility.ts';
import { work } from './pallets/standard/work.ts';
import { utf8 } from './primitives/bytes.ts';
import { type Codec, encode } from './primitives/scale/codec.ts';
import { ScaleError, Source } from './primitives/scale/io.ts';
import type { RuntimeVersion } from './primitives/types.ts';
import { VERSION } from './version.ts';

/** What wallets call amounts; a chain spec that says otherwise does not fit transactions signed by hardware wallets. */
const TOKEN = { decimals: 18, tokenSymbol: 'OPEN' };

const CODE = utf8(':code');

export class RuntimeApiError extends Error {
  readonly code: 'UNKNOWN_METHOD' | 'BAD_PARAMETERS';
  constructor(code: RuntimeApiError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface Runtime {
  readonly version: RuntimeVersion;
  readonly executive: Executive;
  readonly apis: readonly RuntimeApi[];
  /** Runs `Api_method` with SCALE-encoded parameters. Throws {@link RuntimeApiError}, or what the method itself throws. */
  call(host: Host, method: string, parameters: Uint8Array): Uint8Array;
  /** Writes the state of the genesis block. `code` is this runtime as WebAssembly, for `:code`. */
  genesis(host: Host, config: GenesisConfig, code: Uint8Array): void;
}

export interface RuntimeOptions {
  /** Names runtime APIs: blake2b with eight bytes of output. */
  blake2_64(data: Uint8Array): Uint8Array;
  /** Digests the metadata for hardware wallets: 32 bytes. */
  blake3(data: Uint8Array): Uint8Array;
}

export function createRuntime({ blake2_64, blake3 }: RuntimeOptions): Runtime {
  const nameless: RuntimeVersion = { ...VERSION, apis: [] };
  const calls = { codec: outerCall(() => assembly.call) };
  const pallets: readonly AnyPallet[] = [
    system(() => version),
    timestamp,
    aura,
    beacon,
    grandpa,
    work(() => queuesOf(assembly)),
    balances,
    transactionPayment,
    datanets,
    models,
    compute,
    inference,
    attribution,
    blobs,
    audits,
    commitments,
    authorship,
    staking,
    session(manager),
    historical,
    offences,
    utility(calls),
    multisig(calls),
    proxy(calls),
    sudo(calls),
    treasury,
    governance(calls),
    convictionVoting,
  ];
  const assembly: Assembly = assemble('openledger_runtime', pallets);
  const chosen = extensions({ ...nameless, metadataHash: (host) => cachedDigest(host) });
  const executive = new Executive(assembly, chosen, nameless);
  const templates = new Map<MetadataVersion, MetadataTemplate>();
  const apis: RuntimeApi[] = [
    ...standardApis({
      executive,
      extensions: chosen,
      version: () => version,
      metadata: (host, wanted) => cachedMetadata(host, wanted),
    }),
    ...pallets.flatMap((each) => each.apis ?? []),
  ];
  const version: RuntimeVersion = {
    ...VERSION,
    apis: apis.map((api): [Uint8Array, number] => [blake2_64(utf8(api.name)), api.version]),
  };
  const methods = new Map(
    apis.flatMap((api) =>
      Object.entries(api.methods).map(([name, method]) => [`${api.name}_${name}` as string, method] as const),
    ),
  );

  /** The definitions never change while the runtime lives: only constants of the state are filled in anew. */
  function cachedMetadata(host: Host, wanted: MetadataVersion): Uint8Array {
    const known = templates.get(wanted);
    const filled = known && filledIn(known, host);
    if (filled !== undefined) return filled;
    const made = metadata({ assembly, extensions: chosen, apis }, wanted, host);
    templates.set(wanted, made);
    return made.bytes;
  }

  let digest: Uint8Array | undefined;
  /** Only definitions go into it, no constants: it is the same in every state. */
  function cachedDigest(host: Host): Uint8Array {
    digest ??= metadataDigest(
      describe({ assembly, extensions: chosen, apis }, 15, host),
      { ...TOKEN, ...VERSION, base58Prefix: SS58_PREFIX },
      blake3,
    );
    return digest;
  }

  return {
    version,
    executive,
    apis,
    call(host, name, parameters) {
      const method = methods.get(name);
      if (method === undefined) throw new RuntimeApiError('UNKNOWN_METHOD', `the runtime has no method ${name}`);
      const env = new Execution(assembly, host, false);
      return encode(method.output, method.run(env, decodeInputs(name, method.inputs, parameters)));
    },
    genesis(host, config, code) {
      host.put(CODE, code);
      const env = new Execution(assembly, host, false);
      const parts: Readonly<Record<string, unknown>> = {
        Balances: { balances: config.balances },
        Aura: {
          ...config.aura,
          authorities: orElse(config.aura.authorities, () => config.session.map((each) => each.aura)),
        },
        Grandpa: {
          authorities: orElse(config.grandpa.authorities, () =>
            config.session.map((each) => ({ key: each.grandpa, weight: 1n })),
          ),
        },
        Staking: config.staking,
        Session: { keys: config.session, length: config.sessionLength },
        Sudo: { key: config.sudo },
      };
      for (const each of pallets) {
        try {
          each.genesis?.(env, (parts[each.name] ?? config.others[lowerFirst(each.name)]) as never);
        } catch (problem) {
          if (!(problem instanceof DispatchFailure)) throw problem;
          throw new Error(`the genesis state of ${each.name} cannot be made: ${problem.message}`, { cause: problem });
        }
      }
    },
  };
}

/** A set that the chain spec leaves out is that of the first session's validators. */
const orElse = <T>(named: readonly T[], others: () => readonly T[]): readonly T[] =>
  named.length > 0 ? named : others();

const lowerFirst = (name: string): string => name.charAt(0).toLowerCase() + name.slice(1);

function decodeInputs(
  name: string,
  inputs: readonly (readonly [string, Codec<unknown>])[],
  parameters: Uint8Array,
): Record<string, unknown> {
  const source = new Source(parameters);
  try {
    const values = Object.fromEntries(inputs.map(([input, codec]) => [input, codec.decodeFrom(source)]));
    if (source.remaining > 0) throw new ScaleError('TRAILING_BYTES', `${source.remaining} bytes too many`);
    return values;
  } catch (problem) {
    if (problem instanceof ScaleError) throw new RuntimeApiError('BAD_PARAMETERS', `${name}: ${problem.message}`);
    throw problem;
  }
}
