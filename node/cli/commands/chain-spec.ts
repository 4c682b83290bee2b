/** `openledger chain-spec`: describes chains in the files that nodes and light clients read. */
import { writeFileSync } from 'node:fs';
import { blake2b } from '@noble/hashes/blake2.js';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { authorityList } from '../../../consensus/grandpa/authorities.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { decode, fixedBytes, u64, vec } from '../../../runtime/primitives/scale/codec.ts';
import { encodeSs58 } from '../../../runtime/primitives/ss58.ts';
import { genesisOf } from '../../chain/genesis.ts';
import { loadChainSpec, PRESETS, type PresetId, presetSpec } from '../../chain-spec/built-in.ts';
import { type ChainSpec, chainSpecJson, parseBootNode, parseChainSpec, toRaw } from '../../chain-spec/chain-spec.ts';
import { ChainSpecError } from '../../chain-spec/errors.ts';
import { runtimeCode } from '../../wasm-builder/cache.ts';
import { count } from '../options.ts';

interface BuildFlags {
  readonly chain: PresetId;
  readonly raw?: boolean;
  readonly name?: string;
  readonly id?: string;
  readonly slotDuration?: number;
  readonly authorities?: readonly string[];
  readonly bootnodes?: readonly string[];
  readonly output?: string;
}

function write(text: string, output: string | undefined): void {
  if (output === undefined) {
    process.stdout.write(text);
    return;
  }
  try {
    writeFileSync(output, text);
  } catch (problem) {
    const { code } = problem as NodeJS.ErrnoException;
    throw new ChainSpecError('IO', `the chain spec cannot be written to ${output}: ${code}`, { cause: problem });
  }
}

/** With the genesis state itself: what every node of a chain must have in common, whatever its version. */
const raw = async (spec: ChainSpec): Promise<ChainSpec> => {
  const { state } = await genesisOf(spec, await runtimeCode());
  return toRaw(spec, () => state);
};

async function build(flags: BuildFlags): Promise<void> {
  const { slotDuration, authorities, bootnodes, name, id } = flags;
  const preset = presetSpec(flags.chain, {
    ...(slotDuration !== undefined && { slotDurationMs: slotDuration }),
    ...(authorities !== undefined && { authorities }),
  });
  // Read again, so that names and ids are held to the same rules as those in files.
  const spec = parseChainSpec(
    chainSpecJson({
      ...preset,
      ...(name !== undefined && { name }),
      ...(id !== undefined && { id, protocolId: id.toLowerCase() }),
      ...(bootnodes !== undefined && { bootNodes: bootnodes }),
    }),
  );
  write(chainSpecJson(flags.raw ? await raw(spec) : spec), flags.output);
}

async function show(chain: string): Promise<void> {
  const spec = loadChainSpec(chain);
  const { hash, header, state, call } = await genesisOf(spec, await runtimeCode());
  const address = (key: Uint8Array): string => encodeSs58(blake2b, { prefix: spec.properties.ss58Format, key });
  const { tokenSymbol, tokenDecimals } = spec.properties;
  const rows: readonly (readonly [string, string])[] = [
    ['Name', spec.name],
    ['Id', spec.id],
    ['Type', typeof spec.chainType === 'string' ? spec.chainType : spec.chainType.Custom],
    ['Genesis hash', toHex(hash)],
    ['State root', toHex(header.stateRoot)],
    ['Genesis', `${spec.genesis.type === 'raw' ? 'raw' : 'by its configuration'}, ${state.length} keys`],
    ['Token', `${tokenSymbol}, ${tokenDecimals} decimals`],
    ['Slots', `${decode(u64, call('AuraApi_slot_duration'))} ms`],
    ...decode(vec(fixedBytes(32)), call('AuraApi_authorities')).map((key) => ['Author', address(key)] as const),
    ...decode(authorityList, call('GrandpaApi_grandpa_authorities')).map(
      ([key, weight]) => ['Voter', `${address(key)}, weight ${weight}`] as const,
    ),
    ...spec.bootNodes.map((each) => ['Boot node', each] as const),
  ];
  process.stdout.write(rows.map(([label, value]) => `${label.padEnd(13)} ${value}\n`).join(''));
}

const member = (text: string, before: readonly string[] = []): readonly string[] => {
  if (!/^[A-Z][a-z]+$/.test(text)) throw new InvalidArgumentError('names such as Alice');
  return [...before, text];
};

function bootNode(text: string, before: readonly string[] = []): readonly string[] {
  try {
    return [...before, parseBootNode(text, 'a boot node')];
  } catch (problem) {
    throw new InvalidArgumentError((problem as Error).message);
  }
}

export function chainSpecCommands(program: Command): void {
  const specs = program.command('chain-spec').description('describe a chain in a file');
  const output = ['--output <file>', 'where to write it (default: the standard output)'] as const;
  specs
    .command('build')
    .description('the chain spec of a built-in chain, as a beginning for your own')
    .addOption(new Option('--chain <name>', 'built-in chain').choices(Object.keys(PRESETS)).default('local'))
    .option('--raw', 'with the genesis state itself')
    .option('--name <name>', 'name of the chain')
    .option('--id <id>', 'its id, also the name of its directory')
    .addOption(new Option('--slot-duration <ms>', 'milliseconds of a slot').argParser(count))
    .addOption(new Option('--authorities <name...>', 'members of the test family that author').argParser(member))
    .addOption(new Option('--bootnodes <multiaddr...>', 'peers to begin with').argParser(bootNode))
    .option(...output)
    .action(build);
  specs
    .command('raw')
    .description('a chain spec with the genesis state itself in place of its configuration')
    .argument('<name|file>')
    .option(...output)
    .action(async (chain: string, flags: { readonly output?: string }) => {
      write(chainSpecJson(await raw(loadChainSpec(chain))), flags.output);
    });
  specs
    .command('show')
    .description('what a chain spec says: its genesis hash, who authors, who votes')
    .argument('<name|file>')
    .action(show);
}
