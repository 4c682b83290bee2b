/** Records on their way into a batch: what is wrong with a file, and in which line. */
import t from 'tap';
import { createHashing } from '../../node/crypto/hashing.ts';
import { prepareBatch } from '../../rpc/client/batches.ts';
import { MAX_RECORD_BYTES } from '../../runtime/primitives/attribution/limits.ts';
import { parseRecords, RecordError } from '../../runtime/primitives/attribution/records.ts';
import { concatBytes, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { type AccountId, asAccountId } from '../../runtime/primitives/types.ts';

const hashing = createHashing();
const fault = (jsonl: string | Uint8Array): string => {
  try {
    prepareBatch(hashing, jsonl);
    return 'none';
  } catch (problem) {
    if (!(problem instanceof RecordError)) throw problem;
    return `${problem.code} in line ${problem.line}`;
  }
};
const good = '{"text":"a pear"}';

t.test('the first bad line is named', async (test) => {
  test.equal(fault(`${good}\n{"text":"a fig"\n{"text":"a plum"}`), 'RECORD_NOT_JSON in line 2');
  test.equal(fault(`${good}\n["a fig"]`), 'RECORD_NOT_OBJECT in line 2');
  test.equal(fault(`${good}\n\n{"text":"a fig"}`), 'RECORD_EMPTY in line 2');
  test.equal(fault(''), 'RECORD_EMPTY in line 1');
  test.equal(fault(concatBytes(utf8(`${good}\n`), Uint8Array.of(0x22, 0xff, 0x22, 10))), 'RECORD_NOT_UTF8 in line 2');
  test.equal(fault(`${good}\n{"x":${'['.repeat(20)}${']'.repeat(20)}}`), 'RECORD_TOO_DEEP in line 2');
  test.equal(fault(`${good}\n{"text":"${'x'.repeat(MAX_RECORD_BYTES)}"}`), 'RECORD_TOO_LONG in line 2');
  test.equal(
    fault(`${good}\n{"text":"a fig"}\n{ "text" : "a pear" }`),
    'RECORD_REPEATED in line 3',
    'however it is written',
  );
  test.equal(fault(`${good}\r\n{"text":"a fig"}`), 'none');
});

t.test('what people write becomes what the ledger keeps', async (test) => {
  const batch = prepareBatch(hashing, '{ "b": 1, "a": "x" }\n{"text":"y"}');
  const { blob, records, hash } = batch;
  test.equal(Buffer.from(blob).toString(), '{"a":"x","b":1}\n{"text":"y"}\n');
  test.equal(records, 2);
  test.equal(parseRecords(blob).length, 2, 'canonical: the chain’s own parser takes it');
  const [ann, ben] = [1, 2].map((fill) => asAccountId(new Uint8Array(32).fill(fill))) as [AccountId, AccountId];
  for (const again of [prepareBatch(hashing, blob), prepareBatch(hashing, '{"b":1,"a":"x"}\n{"text":"y"}\n')]) {
    test.same([again.blob, again.hash, again.rootFor(ann)], [blob, hash, batch.rootFor(ann)]);
  }
  test.not(toHex(batch.rootFor(ann)), toHex(batch.rootFor(ben)), 'a root is its contributor’s own');
});

t.test('a file of very many records', (test) => {
  const lines = Array.from({ length: 70_000 }, (_, i) => `{"n":${i}}`);
  test.equal(prepareBatch(hashing, lines.join('\n')).records, 70_000);
  test.end();
});
