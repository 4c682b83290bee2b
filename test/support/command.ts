/** Commands of the program as people type them, without a process for each. */
import { createProgram, told } from '../../node/cli/program.ts';

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** In this process, since one of its own costs a second: what is written meanwhile is the command's. */
export async function run(args: readonly string[]): Promise<Ran> {
  const { write } = process.stdout;
  let out = '';
  process.stdout.write = ((chunk: string | Uint8Array) => {
    out += String(chunk);
    return true;
  }) as typeof write;
  try {
    await (await createProgram(args[0])).parseAsync([...args], { from: 'user' });
    return { code: 0, out, error: '' };
  } catch (problem) {
    return { code: 1, out, error: told(problem) };
  } finally {
    process.stdout.write = write;
  }
}
