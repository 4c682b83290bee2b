/** Who audits the auditor: a ledger from which an account took more than it was given. */
import t from 'tap';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { type BooksError, booksAudit } from '../../node/services/books-audit.ts';
import * as system from '../../runtime/pallets/standard/system.ts';
import { FakeChain } from '../rpc/fake.ts';
import { ALICE, createWorld } from '../runtime/pallets/world.ts';

t.test('a block in which OPEN comes from nowhere stops the node, on whichever fork', async (test) => {
  test.equal(process.env.OPENLEDGER_AUDIT_BOOKS, '1', 'every node of the tests is audited');
  const world = await createWorld();
  test.teardown(world.close);
  const entries = (): [Uint8Array, Uint8Array][] => {
    const out: [Uint8Array, Uint8Array][] = [];
    for (let key = world.host.nextKey(new Uint8Array()); key !== undefined; key = world.host.nextKey(key)) {
      out.push([key, Uint8Array.from(world.host.get(key)!)]);
    }
    return out;
  };
  const honest = entries();
  const info = system.account(world.host, ALICE);
  system.putAccount(world.host, ALICE, { ...info, data: { ...info.data, reserved: info.data.reserved + 1n } });
  const forged = entries();
  test.throws(() => world.finish(), /books/, 'a runtime test does not go on either');

  const hashing = createHashing();
  const signatures = await createSignatures();
  const start = (chain: FakeChain, signal: AbortSignal) => {
    const { blocks, events, states } = chain.client;
    return booksAudit({ blocks, events, states, hashing, signatures }).run(signal);
  };
  const stop = new AbortController();
  const chain = new FakeChain(honest);
  const audit = start(chain, stop.signal);
  chain.add();
  chain.add({ entries: forged, best: false, salt: 1 });
  await test.rejects(audit, { code: 'BOOKS_DO_NOT_BALANCE', message: /block 2/ } satisfies Partial<
    Record<keyof BooksError, unknown>
  >);
  test.equal(chain.listeners, 0);

  const peaceful = start(new FakeChain(honest), stop.signal);
  stop.abort();
  await peaceful;
});
