/** The rooms of receipts and of trainings: what is passed on, what is only not passed on, and what is held against its bearer. */
import t from 'tap';
import type { ProgressFault, SignedProgress } from '../../node/ports/inference.ts';
import { ReceiptRoom } from '../../p2p/ledger/receipt-topic.ts';
import { TrainingRoom } from '../../p2p/ledger/training-topic.ts';
import { createLimits } from '../../p2p/limits/limits.ts';
import type { Room, RoomOptions } from '../../p2p/wire/gossip.ts';
import type { Wire } from '../../p2p/wire/wire.ts';
import { signedProgress } from '../../runtime/primitives/attribution/messages.ts';
import { type SignedInferenceReceipt, signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { hashing, world } from '../runtime/attribution/world.ts';

/** A room whose neighbours are the test, and a clock that it sets. */
function wireOf() {
  const said: Uint8Array[] = [];
  const logged: { readonly level: string; readonly message: string; readonly fields: object }[] = [];
  let now = 10_000;
  let options: RoomOptions | undefined;
  const room: Room = { publish: (bytes) => said.push(bytes), members: () => new Set(), leave() {} };
  const clock = { now: () => now, monotonic: () => now, after: () => () => {} };
  const wire = {
    join: (wanted: RoomOptions) => {
      options = wanted;
      return room;
    },
    clock,
    limits: createLimits({ clock, byAddress: false, isNamed: () => false }),
    log: (level: string, message: string, fields: object) => logged.push({ level, message, fields }),
  } as unknown as Wire;
  return {
    wire,
    said,
    logged,
    wait: (ms: number) => {
      now += ms;
    },
    hear: async (bytes: Uint8Array, from = 'neighbour') => options!.validate(from, bytes),
  };
}

const RECEIPT = (() => {
  const made = world(3, { records: 20, contributors: 2, k: 8 });
  const { payload: receipt, signature: sign } = made.sign(made.inference(1).receipt);
  return { receipt, sign };
})();

const receiptOf = (nonce: bigint, change: Partial<SignedInferenceReceipt['payload']> = {}): SignedInferenceReceipt => {
  const { receipt, sign } = RECEIPT;
  const promise = { ...receipt.voucher, payload: { ...receipt.voucher.payload, nonce } };
  return { payload: { ...receipt, voucher: promise, ...change }, signature: sign };
};

t.test('receipts', async (test) => {
  const { wire, said, logged, hear } = wireOf();
  const noted: SignedInferenceReceipt[] = [];
  let fault: string | undefined;
  let settled = -1n;
  let gate: Promise<void> = Promise.resolve();
  let checks = 0;
  const room = new ReceiptRoom(wire, {
    hashing,
    async verify() {
      checks++;
      await gate;
      return fault;
    },
    isSettled: ({ payload }) => payload.voucher.payload.nonce <= settled,
    noteReceipt: (receipt) => noted.push(receipt),
  });
  const bytes = (nonce: bigint) => encode(signedInferenceReceipt, receiptOf(nonce));

  test.match(await hear(new Uint8Array([1, 2, 3])), { type: 'reject' }, 'no receipt at all');
  test.equal(checks, 0);
  test.match(await hear(bytes(1n)), { type: 'accept' });
  test.match(await hear(bytes(1n)), { type: 'ignore' }, 'the same again');
  const other = encode(signedInferenceReceipt, receiptOf(1n, { tokensOut: RECEIPT.receipt.tokensOut + 1 }));
  test.equal(checks, 1, 'it is not verified twice');
  fault = 'FEE';
  test.match(await hear(other), { type: 'reject' }, 'another one under the same voucher, which does not hold');
  test.same(logged, [], 'and shows nothing');
  fault = undefined;
  test.match(await hear(other), { type: 'ignore' }, 'one that does hold');
  const worker = toHex(RECEIPT.receipt.worker);
  test.match(logged, [{ level: 'warn', message: /two receipts under voucher 1 of session/, fields: { worker } }]);
  test.match(await hear(other), { type: 'ignore' });
  test.equal(logged.length, 1, 'once');
  test.equal(checks, 3, 'nor verified again');
  settled = 5n;
  test.match(await hear(bytes(5n)), { type: 'ignore' }, 'settled on the chain');
  fault = 'FEE';
  test.match(await hear(bytes(6n)), { type: 'reject', reason: /FEE/ }, 'wrong arithmetic');
  for (const excused of ['NO_DATA', 'UNKNOWN_SESSION', 'NOT_SERVING']) {
    fault = excused;
    test.match(await hear(bytes(6n)), { type: 'ignore' }, `${excused}: this node may be the one that lacks something`);
  }
  fault = undefined;
  test.match(await hear(bytes(6n)), { type: 'accept' }, 'a fault is not remembered');
  test.same(
    noted.map(({ payload }) => payload.voucher.payload.nonce),
    [1n, 6n],
  );

  let open = (): void => {};
  gate = new Promise((resolve) => {
    open = resolve;
  });
  const many = Array.from({ length: 20 }, (_, i) => hear(bytes(BigInt(100 + i))));
  const twice = hear(bytes(100n));
  open();
  const verdicts = (await Promise.all(many)).map(({ type }) => type);
  test.same(
    [verdicts.filter((type) => type === 'accept').length, verdicts.filter((type) => type === 'ignore').length],
    [8, 12],
    'only so many of one neighbour are verified at a time',
  );
  gate = new Promise((resolve) => {
    open = resolve;
  });
  const drip = Array.from({ length: 8 }, (_, i) => hear(bytes(BigInt(300 + i)), 'a slow one'));
  const other8 = hear(bytes(400n), 'another one');
  open();
  test.match(await other8, { type: 'accept' }, 'others are not kept waiting by one whose files do not come');
  await Promise.all(drip);
  test.match(await twice, { type: 'ignore' });

  room.publish(receiptOf(200n));
  room.publish(receiptOf(200n));
  test.same(said, [bytes(200n)], 'one of its own is told once');
  test.match(await hear(bytes(200n)), { type: 'ignore' });
  room.publish(receiptOf(200n, { tokensOut: RECEIPT.receipt.tokensOut + 1 }));
  test.match(logged.at(-1), { level: 'warn', message: /voucher 200/ }, 'a worker of its own is no better');
  test.equal(said.length, 1);
});

t.test('trainings', async (test) => {
  const { wire, said, wait, hear } = wireOf();
  let fault: ProgressFault | undefined;
  const taken: number[] = [];
  const room = new TrainingRoom(wire, ({ payload }) => {
    if (fault === undefined) taken.push(payload.done);
    return fault;
  });
  const report = (done: number, lease = 1n): SignedProgress => ({
    payload: {
      chain: RECEIPT.receipt.training,
      order: 3,
      lease,
      at: BigInt(done),
      phase: 'training',
      done,
      step: 7,
      total: undefined,
      loss: undefined,
      tokensPerSecond: undefined,
    } as SignedProgress['payload'],
    signature: RECEIPT.sign,
  });
  const bytes = (done: number, lease?: bigint) => encode(signedProgress, report(done, lease));
  test.match(await hear(Uint8Array.of(9)), { type: 'reject' });
  test.match(await hear(bytes(1)), { type: 'accept' });
  test.match(await hear(bytes(2)), { type: 'ignore' }, 'too soon after the one before');
  test.match(await hear(bytes(2, 2n)), { type: 'accept' }, 'another lease');
  test.match(await hear(bytes(1_000)), { type: 'accept' }, 'the end of a phase does not wait');
  wait(1_000);
  for (const excused of ['NOT_LEASED', 'STALE', 'OTHER_CHAIN'] as const) {
    fault = excused;
    test.match(await hear(bytes(4)), { type: 'ignore' }, excused);
  }
  fault = 'BAD_SIGNATURE';
  test.match(await hear(bytes(4)), { type: 'reject' });
  fault = undefined;
  test.same(taken, [1, 2, 1_000]);
  room.publish(report(5));
  room.publish(report(6));
  wait(1_000);
  room.publish(report(7));
  room.publish(report(1_000));
  test.same(said, [bytes(5), bytes(7), bytes(1_000)]);
});
