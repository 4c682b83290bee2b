/** Writes rounds of a database until it is killed, and says which ones are written. */
import { COLUMN, Database } from '../../node/database/database.ts';
import { utf8 } from '../../runtime/primitives/bytes.ts';

const database = await Database.open(process.argv[2]!);
const last = database.get(COLUMN.meta, utf8('round'));
for (let round = last === undefined ? 0 : new DataView(last.buffer, last.byteOffset).getUint32(0) + 1; ; round++) {
  const number = new Uint8Array(4);
  new DataView(number.buffer).setUint32(0, round);
  const batch = database.batch();
  for (let i = 0; i < 20; i++) batch.put(COLUMN.nodes, utf8(`${round}/${i}`), new Uint8Array(2_000).fill(round));
  batch.put(COLUMN.meta, utf8('round'), number);
  await batch.commit({ sync: round % 3 === 0 });
  process.stdout.write(`${round}\n`);
}
