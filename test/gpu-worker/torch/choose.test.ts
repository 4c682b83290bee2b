import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'tap';
import { chooseEngine } from '../../../gpu-worker/engines/choose.ts';
import { EngineError } from '../../../gpu-worker/engines/engine-error.ts';
import { findPython, isOlder } from '../../../gpu-worker/engines/torch/python.ts';

test('auto takes torch where Python has it, and says what is missing where not', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'choose-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  /** A program that answers as Python would. */
  const python = (name: string, answer: unknown): string => {
    const path = join(directory, name);
    writeFileSync(
      path,
      `#!/bin/sh\ncat <<'END'\n${typeof answer === 'string' ? answer : JSON.stringify(answer)}\nEND\n`,
    );
    chmodSync(path, 0o755);
    return path;
  };
  const packages = { torch: '2.13.0+cu128', transformers: '5.18.0', safetensors: '0.8.0', numpy: '2.4.6' };
  const good = python('good', { version: '3.11.7', packages });
  const search = await findPython({ OPENLEDGER_PYTHON: good });
  t.same(search, { found: true, python: { program: good, version: '3.11.7', packages } });
  for (const choice of ['auto', 'torch'] as const) {
    const { engine, why } = await chooseEngine(choice, {}, { OPENLEDGER_PYTHON: good });
    t.equal(engine.kind, 'torch');
    t.match(why, /torch 2\.13\.0\+cu128/);
    await engine.close();
  }
  for (const [name, answer, words] of [
    ['old', { version: '3.9.2', packages }, /Python 3\.9\.2; 3\.10/],
    ['bare', { version: '3.12.0', packages: { ...packages, torch: null, numpy: null } }, /has no torch, numpy/],
    [
      'early',
      { version: '3.12.0', packages: { ...packages, transformers: '4.57.1' } },
      /transformers 4\.57\.1 \(at least 5/,
    ],
    ['broken', 'Segmentation fault', /does not run/],
    ['missing', undefined, /does not run/],
  ] as const) {
    const program = answer === undefined ? join(directory, 'none') : python(name, answer);
    const environment = { OPENLEDGER_PYTHON: program, PATH: process.env.PATH };
    const { engine, why } = await chooseEngine('auto', {}, environment);
    t.equal(engine.kind, 'embedded', name);
    t.match(why, words);
    t.match(why, /requirements\.lock/);
    await engine.close();
    const refused = await chooseEngine('torch', {}, environment).catch((error) => error);
    t.ok(refused instanceof EngineError && refused.code === 'ENGINE_FAILED');
    t.match(refused.message, words);
  }
  // Without the variable, by name on the PATH: the first that has everything.
  python('python3', { version: '3.12.0', packages: { ...packages, torch: null } });
  python('python', { version: '3.12.0', packages });
  const byName = await findPython({ PATH: `${directory}:/usr/bin:/bin` });
  t.equal(byName.found && byName.python.program, 'python');
  t.equal((await findPython({ PATH: join(directory, 'none') })).found, false);
  const { engine, why } = await chooseEngine('embedded', {}, { OPENLEDGER_PYTHON: good });
  t.equal(engine.kind, 'embedded');
  t.match(why, /as asked for/);
  await engine.close();
});

test('versions compare by their numbers', async (t) => {
  t.equal(isOlder('2.13.0+cpu', '2.6'), false);
  t.equal(isOlder('2.6.0a1', '2.6'), false);
  t.equal(isOlder('2.5.9', '2.6'), true);
  t.equal(isOlder('3.9', '3.10'), true);
  t.equal(isOlder('5', '5.0'), false);
});
