/**
 * A file in place of flags: a JSON object with the flags' names, `{ "rpc-port": 9950, "bootnodes": ["/dns4/…"], "mdns": false }`.
 * What stands on the command line goes first.
 */
import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError, type Option } from 'commander';

export class ConfigError extends Error {
  /** `IO`: the file cannot be read. `NOT_JSON`, `UNKNOWN_OPTION`, `BAD_VALUE`: what is wrong with it. */
  readonly code: 'IO' | 'NOT_JSON' | 'UNKNOWN_OPTION' | 'BAD_VALUE';
  constructor(code: ConfigError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The name in the file: that of the flag, without `no-` for those that switch something off. */
const nameOf = (option: Option): string => (option.long ?? '').replace(/^--(no-)?/, '');

const isFlag = (option: Option): boolean => !option.required && !option.optional;

function read(file: string): Readonly<Record<string, unknown>> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (problem) {
    const { code } = problem as NodeJS.ErrnoException;
    throw new ConfigError('IO', `the configuration ${file} cannot be read: ${code}`, { cause: problem });
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch (problem) {
    throw new ConfigError('NOT_JSON', `the configuration ${file} is not JSON: ${(problem as Error).message}`);
  }
  throw new ConfigError('NOT_JSON', `the configuration ${file} should be an object with the names of flags`);
}

function parsed(option: Option, given: unknown): unknown {
  const bad = (expected: string) => new ConfigError('BAD_VALUE', `${nameOf(option)} should be ${expected}`);
  if (isFlag(option)) {
    if (typeof given !== 'boolean') throw bad('true or false');
    return given;
  }
  const one = (value: unknown, before: unknown): unknown => {
    if (typeof value !== 'string' && typeof value !== 'number') throw bad('text or a number');
    try {
      return option.parseArg === undefined ? String(value) : option.parseArg(String(value), before);
    } catch (problem) {
      if (problem instanceof InvalidArgumentError) throw bad(problem.message);
      throw problem;
    }
  };
  if (!option.variadic) return one(given, undefined);
  if (!Array.isArray(given)) throw bad('a list');
  return given.map((each) => [one(each, undefined)].flat()[0]);
}

/** Gives a command the options of a file where the command line is silent. Throws {@link ConfigError}. */
export function applyConfigFile(command: Command, file: string): void {
  for (const [name, given] of Object.entries(read(file))) {
    const option = command.options.find((each) => nameOf(each) === name && name !== 'config');
    if (option === undefined) throw new ConfigError('UNKNOWN_OPTION', `${file}: there is no option "${name}"`);
    const attribute = option.attributeName();
    const source = command.getOptionValueSource(attribute);
    if (source !== undefined && source !== 'default') continue;
    command.setOptionValueWithSource(attribute, parsed(option, given), 'config');
  }
}
