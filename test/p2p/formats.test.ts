/** The bytes of the network: known answers written out by hand from Substrate's formats, and decoders under random bytes. */
import t from 'tap';
import type { WarpProof } from '../../consensus/grandpa/warp.ts';
import { uniforms } from '../../gpu-worker/attribution/seeded.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { NetworkError } from '../../p2p/host/errors.ts';
import { announceHandshake, blockAnnounce, role, transactions } from '../../p2p/protocols/announce.ts';
import {
  decodeLightRequest,
  decodeLightResponse,
  encodeLightRequest,
  encodeLightResponse,
  type LightRequest,
} from '../../p2p/protocols/light.ts';
import {
  decodeStateRequest,
  decodeStateResponse,
  encodeStateRequest,
  encodeStateResponse,
  type StateRequest,
  type StateResponse,
} from '../../p2p/protocols/state.ts';
import {
  type BlockData,
  type BlockRequest,
  decodeBlockRequest,
  decodeBlockResponse,
  encodeBlockData,
  encodeBlockRequest,
  encodeBlockResponse,
} from '../../p2p/protocols/sync.ts';
import { warpProof, warpRequest } from '../../p2p/protocols/warp.ts';
import { encodeFrame, encodeLength, FrameReader } from '../../p2p/wire/framing.ts';
import { bytesField, readFields, varintField } from '../../p2p/wire/protobuf.ts';
import { concatBytes, fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { AURA_ENGINE, GRANDPA_ENGINE, type Header, headerHash } from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { asHash } from '../../runtime/primitives/types.ts';

const hashing = createHashing();
const filled = (byte: number) => asHash(new Uint8Array(32).fill(byte));
const hexOf = (byte: number, count: number) => byte.toString(16).padStart(2, '0').repeat(count);

/** `code` of what it throws; an error without a code is a bug and comes out. */
function codeOf(run: () => unknown): string | undefined {
  try {
    run();
    return undefined;
  } catch (problem) {
    if (problem instanceof NetworkError || problem instanceof ScaleError) return problem.code;
    throw problem;
  }
}

const header: Header = {
  parentHash: filled(1),
  number: 5,
  stateRoot: filled(2),
  extrinsicsRoot: filled(3),
  digest: {
    logs: [
      { type: 'PreRuntime', value: [AURA_ENGINE, fromHex('0x0700000000000000')] },
      { type: 'Seal', value: [AURA_ENGINE, new Uint8Array(64).fill(9)] },
    ],
  },
};
/** Parent, compact number, roots, two digest items: `06` "aura" slot, `05` "aura" signature. */
const HEADER = `${hexOf(1, 32)}14${hexOf(2, 32)}${hexOf(3, 32)}08066175726120${'0700000000000000'}0561757261${'0101'}${hexOf(9, 64)}`;

t.test('frames', async (test) => {
  for (const [length, bytes] of [
    [0, '0x00'],
    [1, '0x01'],
    [127, '0x7f'],
    [128, '0x8001'],
    [300, '0xac02'],
    [16 * 1024 * 1024, '0x80808008'],
  ] as const) {
    test.equal(toHex(encodeLength(length)), bytes);
  }
  const next = uniforms(1n);
  for (let run = 0; run < 300; run++) {
    const frames = Array.from({ length: 1 + Math.floor(next() * 6) }, () =>
      Uint8Array.from({ length: Math.floor(next() * next() * 400) }, () => next() * 256),
    );
    const stream = concatBytes(...frames.map(encodeFrame));
    const reader = new FrameReader(400);
    const found: Uint8Array[] = [];
    for (let at = 0; at < stream.length; ) {
      const size = 1 + Math.floor(next() * next() * 200);
      found.push(...reader.push(stream.subarray(at, at + size)));
      at += size;
    }
    test.same(found.map(toHex), frames.map(toHex), `run ${run}`);
    test.ok(reader.complete);
  }
  const reader = new FrameReader(100);
  test.same(reader.push(fromHex('0x0341')), []);
  test.notOk(reader.complete, 'a frame that is cut off is noticed');
  test.equal(
    codeOf(() => new FrameReader(100).push(fromHex('0x65'))),
    'TOO_LARGE',
    'refused by its length alone',
  );
  test.equal(
    codeOf(() => new FrameReader(2 ** 40).push(fromHex('0xffffffffff01'))),
    'MALFORMED',
  );
  test.equal(
    codeOf(() => new FrameReader(100).push(fromHex('0x8000'))),
    'MALFORMED',
    'one length has one spelling',
  );
});

t.test('protobuf', async (test) => {
  test.equal(toHex(varintField(1, 150)), '0x089601', 'the example of the specification');
  test.equal(toHex(bytesField(2, utf8('testing'))), '0x120774657374696e67', 'and the other one');
  test.equal(varintField(1, 0).length, 0, 'zero is not written');
  const all = concatBytes(
    varintField(1, 150),
    fromHex('0x190102030405060708'),
    bytesField(2, utf8('a')),
    fromHex('0x2501020304'),
    varintField(1000, 1),
  );
  test.same(
    [...readFields(all)],
    [
      { number: 1, type: 'varint', value: 150n },
      { number: 2, type: 'bytes', value: utf8('a') },
      { number: 1000, type: 'varint', value: 1n },
    ],
    'fixed-width fields are passed over',
  );
  for (const bad of [
    '0x08',
    '0x0880',
    `0x08${'ff'.repeat(10)}01`,
    '0x1205aa',
    '0x0b',
    '0x00',
    '0x19010203',
    '0x12ffffffffffffffffff01',
  ]) {
    test.equal(
      codeOf(() => [...readFields(fromHex(bad))]),
      'MALFORMED',
      bad,
    );
  }
});

t.test('announcements and handshakes', async (test) => {
  test.same(
    ['FULL', 'LIGHT', 'AUTHORITY'].map((name) => toHex(encode(role, name as 'FULL'))),
    ['0x01', '0x02', '0x04'],
  );
  test.equal(
    codeOf(() => decode(role, fromHex('0x03'))),
    'OUT_OF_RANGE',
  );
  const shake = { role: 'AUTHORITY', bestNumber: 0x01020304, bestHash: filled(5), genesisHash: filled(6) } as const;
  const bytes = `0x0404030201${hexOf(5, 32)}${hexOf(6, 32)}`;
  test.equal(toHex(encode(announceHandshake, shake)), bytes);
  test.same(decode(announceHandshake, fromHex(bytes)), shake);
  const announced = { header, isBest: 1, data: new Uint8Array() };
  test.equal(toHex(encode(blockAnnounce, announced)), `0x${HEADER}0100`);
  test.same(decode(blockAnnounce, fromHex(`0x${HEADER}0100`)), announced);
  test.equal(toHex(headerHash(hashing, header)), toHex(hashing.blake2_256(fromHex(`0x${HEADER}`))));
  test.equal(toHex(encode(transactions, [fromHex('0xaabb'), fromHex('0xcc')])), '0x0808aabb04cc');
});

t.test('sync/2', async (test) => {
  const all = { header: true, body: true, justifications: true };
  const byNumber: BlockRequest = {
    fields: all,
    from: { type: 'number', number: 0x0102 },
    direction: 'ascending',
    max: 64,
  };
  // 1 << 24 | 1 << 25 | 1 << 28; the height little-endian; up; 64; several justifications.
  test.equal(toHex(encodeBlockRequest(byNumber)), '0x0880808098011a040201000030403801');
  const byHash: BlockRequest = {
    fields: { header: true, body: false, justifications: false },
    from: { type: 'hash', hash: filled(4) },
    direction: 'descending',
    max: 1,
  };
  test.equal(toHex(encodeBlockRequest(byHash)), `0x08808080081220${hexOf(4, 32)}280130013801`);
  for (const request of [byNumber, byHash]) test.same(decodeBlockRequest(encodeBlockRequest(request)), request);
  test.same(
    decodeBlockRequest(fromHex('0x1a080201000000000000')).from,
    { type: 'number', number: 258 },
    'a u64 height',
  );
  test.equal(
    codeOf(() => decodeBlockRequest(fromHex('0x1a080201000001000000'))),
    'MALFORMED',
    'beyond 2^32',
  );
  test.equal(
    codeOf(() => decodeBlockRequest(fromHex('0x3001'))),
    'MALFORMED',
    'no start',
  );
  test.equal(
    codeOf(() => decodeBlockRequest(fromHex('0x1204aabbccdd'))),
    'OUT_OF_RANGE',
    'a short hash',
  );

  const block: BlockData = {
    hash: filled(8),
    header,
    body: [fromHex('0xaabb'), new Uint8Array()],
    justifications: [[GRANDPA_ENGINE, fromHex('0x1122')]],
  };
  const inner = [
    `0a20${hexOf(8, 32)}`,
    `12${toHex(encodeLength(HEADER.length / 2)).slice(2)}${HEADER}`,
    '1a0308aabb',
    '1a0100',
    // Vec of one: "FRNK", two bytes.
    '420804' + '46524e4b' + '081122',
  ].join('');
  const response = encodeBlockResponse([encodeBlockData(block)]);
  test.equal(toHex(response), `0x0a${toHex(encodeLength(inner.length / 2)).slice(2)}${inner}`);
  test.same(decodeBlockResponse(response, all, 1), [block]);
  test.equal(
    codeOf(() => decodeBlockResponse(response, all, 0)),
    'MALFORMED',
    'more than asked for',
  );
  const bare = encodeBlockResponse([
    encodeBlockData({ ...block, header: undefined, body: undefined, justifications: undefined }),
  ]);
  test.same(decodeBlockResponse(bare, all, 1)[0]?.body, [], 'an empty body is not a missing one');
  test.equal(
    codeOf(() => decodeBlockResponse(fromHex('0x0a021200'), all, 1)),
    'MALFORMED',
    'no hash',
  );
});

t.test('light/2', async (test) => {
  const read: LightRequest = { type: 'read', block: filled(4), keys: [fromHex('0x26aa'), fromHex('0x01')] };
  test.equal(toHex(encodeLightRequest(read)), `0x12291220${hexOf(4, 32)}1a0226aa1a0101`);
  const call: LightRequest = { type: 'call', block: filled(4), method: 'Core_version', data: fromHex('0x00') };
  test.equal(
    toHex(encodeLightRequest(call)),
    `0x0a331220${hexOf(4, 32)}1a0c${toHex(utf8('Core_version')).slice(2)}220100`,
  );
  for (const request of [read, call]) test.same(decodeLightRequest(encodeLightRequest(request)), request);
  // A proof is a plain Vec<Vec<u8>>.
  const proof = [fromHex('0x0102'), fromHex('0x03')];
  test.equal(toHex(encodeLightResponse('read', proof)), '0x12081206080801020403');
  test.equal(toHex(encodeLightResponse('call', proof)), '0x0a081206080801020403');
  test.same(decodeLightResponse('read', encodeLightResponse('read', proof)), proof);
  test.equal(toHex(encodeLightResponse('read', undefined)), '0x1200', 'a state that is not here');
  test.equal(decodeLightResponse('read', fromHex('0x1200')), undefined);
  test.equal(
    codeOf(() => decodeLightResponse('call', fromHex('0x1200'))),
    'MALFORMED',
  );
  test.equal(
    codeOf(() => decodeLightRequest(new Uint8Array())),
    'MALFORMED',
  );
  test.equal(
    codeOf(() => decodeLightRequest(fromHex('0x2200'))),
    'REFUSED',
    'child tries',
  );
  test.equal(
    codeOf(() => decodeLightRequest(fromHex('0x12021200'))),
    'MALFORMED',
    'an empty hash',
  );
});

t.test('state/2', async (test) => {
  const first: StateRequest = { block: filled(4), after: undefined, noProof: false };
  test.equal(toHex(encodeStateRequest(first)), `0x0a20${hexOf(4, 32)}`);
  const further: StateRequest = { block: filled(4), after: fromHex('0x26aa'), noProof: true };
  test.equal(toHex(encodeStateRequest(further)), `0x0a20${hexOf(4, 32)}120226aa1801`);
  for (const request of [first, further]) test.same(decodeStateRequest(encodeStateRequest(request)), request);
  test.equal(
    codeOf(() => decodeStateRequest(fromHex(`0x0a20${hexOf(4, 32)}120101120102`))),
    'REFUSED',
    'child tries',
  );
  test.equal(
    codeOf(() => decodeStateRequest(fromHex('0x0a0100'))),
    'MALFORMED',
  );
  const proof: StateResponse = { type: 'proof', nodes: [fromHex('0x0102'), fromHex('0x03')] };
  test.equal(toHex(encodeStateResponse(proof)), '0x1206080801020403');
  const entries: StateResponse = { type: 'entries', entries: [[fromHex('0x01'), fromHex('0xaabb')]], complete: true };
  test.equal(toHex(encodeStateResponse(entries)), '0x0a0b12070a01011202aabb1801');
  for (const response of [proof, entries]) test.same(decodeStateResponse(encodeStateResponse(response)), response);
});

t.test('sync/warp', async (test) => {
  test.equal(toHex(encode(warpRequest, filled(4))), `0x${hexOf(4, 32)}`);
  test.equal(toHex(encode(warpProof, { fragments: [], finished: true })), '0x0001');
  const justification = {
    round: 3,
    commit: { target: { hash: toHex(filled(7)), number: 5 }, precommits: [] },
    votesAncestries: [],
  };
  const proof = { fragments: [{ header, justification }], finished: false } as unknown as WarpProof;
  // The justification stands in it as it is, without a length: round, target, precommits, headers.
  const bytes = `0x04${HEADER}${'0300000000000000'}${hexOf(7, 32)}${'05000000'}000000`;
  test.equal(toHex(encode(warpProof, proof)), bytes);
  test.same(decode(warpProof, fromHex(bytes)), proof);
});

t.test('random and mutated bytes: a typed error or a value, nothing else', async (test) => {
  const next = uniforms(7n);
  const all = { header: true, body: true, justifications: true };
  const samples: [string, Uint8Array, (bytes: Uint8Array) => unknown][] = [
    [
      'request',
      encodeBlockRequest({ fields: all, from: { type: 'hash', hash: filled(1) }, direction: 'descending', max: 9 }),
      decodeBlockRequest,
    ],
    [
      'response',
      encodeBlockResponse([
        encodeBlockData({ hash: filled(1), header, body: [new Uint8Array(9)], justifications: [] }),
      ]),
      (bytes) => decodeBlockResponse(bytes, all, 64),
    ],
    [
      'handshake',
      encode(announceHandshake, { role: 'FULL', bestNumber: 1, bestHash: filled(1), genesisHash: filled(2) }),
      (bytes) => decode(announceHandshake, bytes),
    ],
    ['announcement', fromHex(`0x${HEADER}0100`), (bytes) => decode(blockAnnounce, bytes)],
    [
      'transactions',
      encode(transactions, [new Uint8Array(40), new Uint8Array(3)]),
      (bytes) => decode(transactions, bytes),
    ],
    ['light', encodeLightRequest({ type: 'read', block: filled(4), keys: [fromHex('0x26aa')] }), decodeLightRequest],
    ['light answer', encodeLightResponse('read', [new Uint8Array(40)]), (bytes) => decodeLightResponse('read', bytes)],
    ['state', encodeStateRequest({ block: filled(4), after: fromHex('0x26'), noProof: true }), decodeStateRequest],
    ['state answer', encodeStateResponse({ type: 'proof', nodes: [new Uint8Array(40)] }), decodeStateResponse],
    ['warp', encode(warpProof, { fragments: [], finished: true }), (bytes) => decode(warpProof, bytes)],
  ];
  for (const [name, sample, read] of samples) {
    let refused = 0;
    for (let i = 0; i < 4_000; i++) {
      let bytes = sample.slice();
      if (i % 4 === 0) bytes = Uint8Array.from({ length: Math.floor(next() * 120) }, () => next() * 256);
      else {
        for (let j = 0; j < 1 + (i % 3); j++) bytes[Math.floor(next() * bytes.length)] = Math.floor(next() * 256);
        if (next() < 0.3) bytes = bytes.slice(0, Math.floor(next() * bytes.length));
      }
      if (codeOf(() => read(bytes)) !== undefined) refused++;
    }
    test.ok(refused > 500, `${name}: ${refused} of 4,000 refused`);
  }
});
