/** The command line. */
import { createProgram, told } from './program.ts';

try {
  await createProgram().parseAsync();
} catch (problem) {
  process.stderr.write(`${told(problem)}\n`);
  process.exitCode = 1;
}
