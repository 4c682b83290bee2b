/** Damage to the files of a database, and a full disk: said at once, with a code, and nothing made worse. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readdir, readFile, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { COLUMN, Database, writingError } from '../../node/database/database.ts';
import { utf8 } from '../../runtime/primitives/bytes.ts';

async function directory(test: { teardown(after: () => unknown): void }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'database-'));
  test.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

const ROUNDS = 600;
async function fill(path: string, rounds = ROUNDS): Promise<void> {
  const database = await Database.open(path);
  for (let round = 0; round < rounds; round++) {
    const batch = database.batch();
    for (let i = 0; i < 20; i++) batch.put(COLUMN.nodes, utf8(`${round}/${i}`), new Uint8Array(1_000).fill(round));
    await batch.commit({ sync: round % 10 === 9 });
  }
  await database.close();
}

/** Names with their content, so that any change shows. */
async function contents(path: string): Promise<Map<string, string>> {
  const names = (await readdir(path)).filter((name) => !/^LO(G|CK)/.test(name));
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, (await readFile(join(path, name))).toString('base64')] as const),
    ),
  );
}

t.test('files that were cut short or are missing', { timeout: 100_000 }, async (test) => {
  const home = await directory(test);
  const whole = join(home, 'whole');
  await fill(whole);
  const again = await Database.open(whole);
  test.equal(again.get(COLUMN.nodes, utf8('599/19'))?.length, 1_000);
  const batch = again.batch();
  batch.put(COLUMN.meta, utf8('later'), Uint8Array.of(1));
  await batch.commit({ sync: true });
  await again.close();

  const names = await readdir(whole);
  const log = names.find((name) => name.endsWith('.log'))!;
  const manifest = names.find((name) => name.startsWith('MANIFEST'))!;
  const tables = names.filter((name) => name.endsWith('.ldb'));
  test.ok(tables.length > 0, 'there are tables');
  const cases: readonly (readonly [string, (size: number) => number | undefined])[] = [
    [log, (size) => size - 1],
    [log, () => 0],
    [manifest, (size) => size - 1],
    [manifest, () => 0],
    ['CURRENT', () => 0],
    ['CURRENT', () => undefined],
    [log, () => undefined],
    ...tables.map((name) => [name, (size: number) => size >> 1] as const),
    [tables[0]!, () => 0],
    [tables[0]!, () => undefined],
  ];
  for (const [name, length] of cases) {
    const copy = join(home, 'copy');
    await cp(whole, copy, { recursive: true });
    const size = (await stat(join(copy, name))).size;
    const left = length(size);
    if (left === undefined) await rm(join(copy, name));
    else await truncate(join(copy, name), left);
    const before = await contents(copy);
    const what = `${name.replace(/\d+/, 'n')}: ${left === undefined ? 'removed' : `${left} bytes of ${size}`}`;
    await test.rejects(Database.open(copy), { code: 'CORRUPT' }, what);
    await test.rejects(Database.open(copy), { code: 'CORRUPT' }, `${what}, again`);
    const after = await contents(copy);
    const missing = [...before.keys()].filter((each) => /\.ldb$/.test(each) && after.get(each) !== before.get(each));
    test.same(missing, [], `${what}: the tables are as they were`);
    // Whoever has the file can put it back.
    await cp(join(whole, name), join(copy, name));
    await rm(copy, { recursive: true });
  }
});

t.test('a process killed while it writes leaves a database that opens', { timeout: 100_000 }, async (test) => {
  const path = join(await directory(test), 'db');
  const reopen = async (): Promise<number> => {
    const database = await Database.open(path);
    const last = database.get(COLUMN.meta, utf8('round'));
    const at = last === undefined ? -1 : new DataView(last.buffer, last.byteOffset).getUint32(0);
    if (at >= 0) test.equal(database.get(COLUMN.nodes, utf8(`${at}/19`))?.length, 2_000, 'a batch is there as a whole');
    await database.close();
    return at;
  };
  for (let kill = 0; kill < 10; kill++) {
    const child = spawn(process.execPath, [fileURLToPath(new URL('./database-writer.ts', import.meta.url)), path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let told = -1;
    const rounds = createInterface({ input: child.stdout });
    rounds.on('line', (line) => {
      told = Number(line);
    });
    await once(rounds, 'line');
    await pause(Math.random() * 150);
    child.kill('SIGKILL');
    await once(child, 'exit');
    const found = await reopen();
    test.ok(found >= told, `what was said to be written is (${told}, found ${found})`);
  }
});

t.test('batches committed ahead are read before they are written, in their order', async (test) => {
  const path = join(await directory(test), 'db');
  const database = await Database.open(path);
  const put = (name: string, value: number | undefined, ahead: boolean, sync = false): Promise<void> => {
    const batch = database.batch();
    if (value === undefined) batch.delete(COLUMN.meta, utf8(name));
    else batch.put(COLUMN.meta, utf8(name), Uint8Array.of(value));
    return batch.commit({ ahead, sync });
  };
  const read = (name: string): number | undefined => database.get(COLUMN.meta, utf8(name))?.[0];
  const written: Promise<void>[] = [];
  const order: number[] = [];
  for (let i = 0; i < 50; i++) {
    written.push(put('a', i, true, i % 7 === 0).then(() => void order.push(i)));
    test.equal(read('a'), i);
  }
  written.push(put('b', 1, false), put('a', undefined, true));
  test.equal(read('b'), undefined, 'not ahead, not yet');
  test.equal(read('a'), undefined, 'removed ahead');
  test.ok(database.backlog > 0);
  const found: string[] = [];
  for await (const [key] of database.entries(COLUMN.meta)) found.push(Buffer.from(key).toString());
  test.ok(found.includes('b') && !found.includes('a'), 'one who walks through all waits for what is on its way');
  await Promise.all(written);
  test.same(
    order,
    [...order].sort((a, b) => a - b),
  );
  test.equal(database.backlog, 0);
  test.equal(read('b'), 1);
  void put('c', 3, true);
  await database.close();
  const again = await Database.open(path);
  test.same([again.get(COLUMN.meta, utf8('a')), again.get(COLUMN.meta, utf8('c'))?.[0]], [undefined, 3]);
  await again.close();
});

t.test('a write that fails half way', { timeout: 60_000 }, async (test) => {
  const path = join(await directory(test), 'db');
  // Files may grow to 256 KiB: the log cannot take what LevelDB wants to put there.
  const limited = `trap '' XFSZ; ulimit -f 256; exec "$0" "$@"`;
  const writer = fileURLToPath(new URL('./database-writer.ts', import.meta.url));
  const child = spawn('bash', ['-c', limited, process.execPath, writer, path], { stdio: ['ignore', 'pipe', 'pipe'] });
  let told = -1;
  createInterface({ input: child.stdout }).on('line', (line) => {
    told = Number(line);
  });
  let complaint = '';
  child.stderr.on('data', (chunk) => {
    complaint += chunk;
  });
  const [code] = await once(child, 'close');
  test.not(code, 0);
  test.match(complaint, /DatabaseError: the database at .* cannot be written to: .*(too large)/i);
  test.ok(told >= 0, 'some rounds went well');

  const database = await Database.open(path);
  const last = database.get(COLUMN.meta, utf8('round'))!;
  test.ok(new DataView(last.buffer, last.byteOffset).getUint32(0) >= told, 'and those are there');
  const batch = database.batch();
  batch.put(COLUMN.meta, utf8('more'), Uint8Array.of(1));
  await batch.commit({ sync: true });
  await database.close();

  const full = writingError(path, new Error('IO error: /db/000003.log: No space left on device'));
  test.match(full, { code: 'DISK_FULL', message: /the disk with the database at .* is full/ });
});
