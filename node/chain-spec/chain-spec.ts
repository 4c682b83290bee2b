/** Chain specs: what makes a chain this one, in the JSON that Substrate nodes and light clients read. */
import { multiaddr } from '@multiformats/multiaddr';
import { compareBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { badField, ChainSpecError } from './errors.ts';
import { type GenesisConfig, genesisConfigJson, parseGenesisConfig } from './genesis-config.ts';
import { asArray, asHex, asInteger, asObject, asString, type Json, type JsonObject, noOthers } from './json.ts';

export type ChainType = 'Development' | 'Local' | 'Live' | { readonly Custom: string };

/** The genesis state itself, or what it is made from. */
export type Genesis =
  | { readonly type: 'raw'; readonly top: ReadonlyMap<`0x${string}`, Uint8Array> }
  | { readonly type: 'config'; readonly config: GenesisConfig };

export interface ChainSpec {
  readonly name: string;
  /** Also the name of the directory that its data is kept in. */
  readonly id: string;
  readonly chainType: ChainType;
  /** Multiaddresses ending in `/p2p/<id>`. */
  readonly bootNodes: readonly string[];
  readonly protocolId: string | undefined;
  readonly forkId: string | undefined;
  readonly properties: ChainProperties;
  readonly genesis: Genesis;
}

export interface ChainProperties {
  readonly ss58Format: number;
  readonly tokenDecimals: number;
  readonly tokenSymbol: string;
}

export const OPEN_PROPERTIES: ChainProperties = { ss58Format: 42, tokenDecimals: 18, tokenSymbol: 'OPEN' };

/** The state that a genesis configuration stands for, as pairs of key and value. */
export type GenesisState = (config: GenesisConfig) => Iterable<readonly [key: Uint8Array, value: Uint8Array]>;

const MAX_NAME = 64;
/** `lightSyncState` and the like are for light clients; nothing here depends on them. */
const KNOWN = ['name', 'id', 'chainType', 'bootNodes', 'protocolId', 'forkId', 'properties', 'genesis'];
const PASSED_OVER = [
  'telemetryEndpoints',
  'consensusEngine',
  'codeSubstitutes',
  'lightSyncState',
  'badBlocks',
  'forkBlocks',
];

/** Throws {@link ChainSpecError}. */
export function parseChainSpec(text: string): ChainSpec {
  let json: Json;
  try {
    json = JSON.parse(text);
  } catch (problem) {
    throw new ChainSpecError('NOT_JSON', `the chain spec is not JSON: ${(problem as Error).message}`);
  }
  const spec = asObject(json, 'spec');
  noOthers(spec, [...KNOWN, ...PASSED_OVER], 'spec');
  const name = asString(spec.name, 'spec.name');
  if (name.length === 0 || name.length > MAX_NAME) throw badField('spec.name', `1 to ${MAX_NAME} characters`);
  return {
    name,
    id: parseId(spec.id, 'spec.id'),
    chainType: parseChainType(spec.chainType),
    bootNodes: asArray(spec.bootNodes ?? [], 'spec.bootNodes').map((each, i) =>
      parseBootNode(each, `spec.bootNodes[${i}]`),
    ),
    protocolId: optionalId(spec.protocolId, 'spec.protocolId'),
    forkId: optionalId(spec.forkId, 'spec.forkId'),
    properties: parseProperties(spec.properties),
    genesis: parseGenesis(spec.genesis),
  };
}

/** Goes into paths and protocol names. */
function parseId(value: Json | undefined, path: string): string {
  const id = asString(value, path);
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(id)) throw badField(path, '1 to 64 letters, digits, _ or -');
  return id;
}

const optionalId = (value: Json | undefined, path: string): string | undefined =>
  value === undefined || value === null ? undefined : parseId(value, path);

function parseChainType(value: Json | undefined): ChainType {
  if (value === undefined) return 'Live';
  if (value === 'Development' || value === 'Local' || value === 'Live') return value;
  if (typeof value === 'object')
    return { Custom: asString(asObject(value, 'spec.chainType').Custom, 'spec.chainType.Custom') };
  throw badField('spec.chainType', 'Development, Local, Live or { "Custom": "…" }');
}

export function parseBootNode(value: Json, path: string): string {
  const text = asString(value, path);
  try {
    const names = multiaddr(text)
      .getComponents()
      .map((component) => component.name);
    if (names.at(-1) === 'p2p' && names.includes('tcp')) return text;
  } catch {
    // Told below.
  }
  throw badField(path, 'a multiaddress such as /dns4/host/tcp/30333/p2p/12D3KooW…');
}

function parseProperties(value: Json | undefined): ChainProperties {
  const properties = asObject(value ?? {}, 'spec.properties');
  const { ss58Format, tokenDecimals, tokenSymbol } = { ...OPEN_PROPERTIES, ...properties } as JsonObject;
  return {
    ss58Format: asInteger(ss58Format, 'spec.properties.ss58Format', 0, 16_383),
    tokenDecimals: asInteger(tokenDecimals, 'spec.properties.tokenDecimals', 0, 38),
    tokenSymbol: asString(tokenSymbol, 'spec.properties.tokenSymbol'),
  };
}

function parseGenesis(value: Json | undefined): Genesis {
  const genesis = asObject(value, 'spec.genesis');
  if (genesis.raw !== undefined) {
    const raw = asObject(genesis.raw, 'spec.genesis.raw');
    if (Object.keys(asObject(raw.childrenDefault ?? {}, 'spec.genesis.raw.childrenDefault')).length > 0) {
      throw badField('spec.genesis.raw.childrenDefault', 'empty: this chain has no child tries');
    }
    const top = new Map<`0x${string}`, Uint8Array>();
    for (const [key, each] of Object.entries(asObject(raw.top, 'spec.genesis.raw.top'))) {
      const path = `spec.genesis.raw.top["${key.slice(0, 80)}"]`;
      top.set(toHex(asHex(key, path)), asHex(each, path));
    }
    return { type: 'raw', top };
  }
  const runtimeGenesis = asObject(genesis.runtimeGenesis, 'spec.genesis.runtimeGenesis');
  const path = 'spec.genesis.runtimeGenesis.patch';
  return { type: 'config', config: parseGenesisConfig(runtimeGenesis.patch ?? {}, path) };
}

/** With the genesis state itself in place of its configuration. */
export function toRaw(spec: ChainSpec, genesisState: GenesisState): ChainSpec {
  if (spec.genesis.type === 'raw') return spec;
  const pairs = [...genesisState(spec.genesis.config)].sort(([a], [b]) => compareBytes(a, b));
  return { ...spec, genesis: { type: 'raw', top: new Map(pairs.map(([key, value]) => [toHex(key), value])) } };
}

/** The pairs of the genesis state, in the order of their keys. */
export function genesisPairs(spec: ChainSpec, genesisState: GenesisState): (readonly [Uint8Array, Uint8Array])[] {
  const { genesis } = toRaw(spec, genesisState);
  if (genesis.type !== 'raw') return [];
  return [...genesis.top].map(([key, value]) => [fromHex(key), value] as const).sort(([a], [b]) => compareBytes(a, b));
}

/** The JSON of a spec, with nothing in it that light clients refuse. */
export function chainSpecJson(spec: ChainSpec): string {
  const { genesis, properties, protocolId, forkId } = spec;
  const json = {
    name: spec.name,
    id: spec.id,
    chainType: spec.chainType,
    bootNodes: spec.bootNodes,
    ...(protocolId !== undefined && { protocolId }),
    ...(forkId !== undefined && { forkId }),
    properties,
    genesis:
      genesis.type === 'raw'
        ? {
            raw: {
              top: Object.fromEntries([...genesis.top].map(([key, value]) => [key, toHex(value)])),
              childrenDefault: {},
            },
          }
        : { runtimeGenesis: { patch: genesisConfigJson(genesis.config, properties.ss58Format) } },
  };
  return `${JSON.stringify(json, undefined, 2)}\n`;
}
