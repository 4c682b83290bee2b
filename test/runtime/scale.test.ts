/**
 * Our SCALE codecs against @polkadot/types, in short: `npm run fuzz:scale` does as many as are asked for. Types that the ledger
 * has none of (u256, bit sequences) have no codec here.
 */
import t from 'tap';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode, u32, vec } from '../../runtime/primitives/scale/codec.ts';
import { multiAddress } from '../../runtime/primitives/types.ts';
import { compare, LAXITIES, pairsOf, readsThere, refusalOf, registryOf } from '../fuzz/differential.ts';

const COUNT = 2_500;

t.test('the same bytes for the same values, and the same verdict on bent ones', { timeout: 60_000 }, async (test) => {
  const registry = await registryOf();
  test.ok(pairsOf(registry).length > 200, 'calls, events, storage and types by themselves');
  const { disagreements, outOfBounds } = compare(registry, Number(process.env.FUZZ_SEED ?? 1), 0, COUNT);
  test.same(disagreements, []);
  test.ok(outOfBounds < COUNT / 50, `${outOfBounds} inputs left aside because our bounds are narrower`);
});

t.test('what they read though it encodes nothing', async (test) => {
  const registry = await registryOf();
  for (const [what, theirs, codec, input, code] of LAXITIES) {
    test.ok(readsThere(registry, theirs, input), `${what}: they take it`);
    test.equal(refusalOf(codec, input)?.code, code, `${what}: we do not`);
  }

  // What stands at the end of the input is taken for what its length suggests.
  const guessing = await registryOf({ plainAddresses: false });
  for (const [bytes, read] of [
    [Uint8Array.of(0x02, 0x04, 0x30), 'index'],
    [Uint8Array.of(0x00, ...new Uint8Array(31)), 'id'],
    [Uint8Array.of(0x02, 18 << 2, ...new Uint8Array(18)), 'address20'],
  ] as const) {
    test.ok(Object.keys(guessing.createType('MultiAddress', bytes).toJSON() as object).includes(read), toHex(bytes));
  }
  test.equal(refusalOf(multiAddress, new Uint8Array(32))?.code, 'UNEXPECTED_END', 'a bare account is no address');
  test.equal(decode(multiAddress, Uint8Array.of(0x02, 0x04, 0x30)).type, 'Raw');

  // Maps are put in order; nobody else minds their order.
  const map = Uint8Array.of(8, 2, 0, 0, 0, 1, 0, 0, 0);
  test.equal(registry.createType('BTreeSet<u32>', map).toHex(), '0x080100000002000000');
  test.same(decode(vec(u32), map), [2, 1]);
});
