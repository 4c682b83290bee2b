/** The command line. What Node makes of the sources is kept, so that every start but the first has less to compile. */
import { enableCompileCache } from 'node:module';
import { fileURLToPath } from 'node:url';

enableCompileCache(fileURLToPath(new URL('../../node_modules/.cache/compile', import.meta.url)));
const { createProgram, told } = await import('./program.ts');
try {
  await createProgram().parseAsync();
} catch (problem) {
  process.stderr.write(`${told(problem)}\n`);
  process.exitCode = 1;
}
