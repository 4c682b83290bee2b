import { DedotClient, LegacyClient, WsProvider } from 'dedot';
import { check, lastHundred, main, nonceOf, people, rejects, UNIT, url, within } from '../check.mjs';

/**
 * The first three heights of a subscription. On its start the library reads the present block, and tells it after those that
 * came while it read: a height may come again, late.
 */
const heights = (subscribe, what) =>
  within(
    new Promise((resolve) => {
      const seen = new Set();
      const stop = subscribe((block) => {
        seen.add(block.number);
        if (seen.size < 3) return;
        // Not within its own callback.
        setTimeout(stop, 0);
        resolve([...seen].sort((a, b) => a - b));
      });
    }),
    60_000,
    what,
  );

const rises = ([first, ...more]) => more.every((each, i) => each === first + i + 1);

async function exercise(client, label) {
  const name = (what) => `${label}: ${what}`;
  const { funder, own } = await people(`dedot-${label}`);
  const version = await client.getRuntimeVersion();
  check(
    name('chain data'),
    version.specName === 'openledger' && client.metadata.version === 'V16',
    `${version.specName} ${client.metadata.version}`,
  );
  check(name('follows best blocks'), rises(await heights((each) => client.block.best(each), 'best blocks')));
  check(
    name('follows finalized blocks'),
    rises(await heights((each) => client.block.finalized(each), 'finalized blocks')),
  );
  const send = (call, pair, options = {}) =>
    within(
      new Promise((resolve, reject) => {
        call
          .signAndSend(pair, options, ({ status, events, dispatchError }) => {
            if (dispatchError !== undefined) reject(new Error(JSON.stringify(dispatchError)));
            if (status.type === 'Invalid' || status.type === 'Drop') reject(new Error(status.value.error));
            if (status.type !== 'Finalized') return;
            const paid = events.find(({ event }) => client.events.transactionPayment.TransactionFeePaid.is(event));
            resolve(paid.event.palletEvent.data);
          })
          .catch(reject);
      }),
      60_000,
      'a transaction',
    );
  for (const { type, pair } of own) {
    const call = client.tx.balances.transferKeepAlive(pair.address, 20n * UNIT);
    const { partialFee } = await call.paymentInfo(funder);
    const { actualFee } = await send(call, funder);
    check(
      name(`the fee estimated is charged (to an ${type} account)`),
      actualFee === partialFee,
      `${actualFee} ${partialFee}`,
    );
  }
  const born = await nonceOf(own[0].pair.address);
  for (const { type, pair } of own) {
    const { tip } = await send(client.tx.balances.transferKeepAlive(funder.address, UNIT), pair, { tip: 77n });
    check(name(`${type}, with a tip`), tip === 77n);
  }
  const [{ pair: first }] = own;
  const remarks = ['0x01', '0x02'].map((each) => client.tx.system.remark(each).call);
  const batch = await send(client.tx.utility.batchAll(remarks), first);
  check(name('a batch'), batch.actualFee > 0n);
  const account = await client.query.system.account(first.address);
  check(name('reads an account'), account.nonce === born + 2 && account.data.free > 10n * UNIT, account.nonce);
  const then = await client.at((await client.block.finalized()).hash);
  const entries = await then.query.system.account.entries();
  const sum = entries.reduce((total, [, { data }]) => total + data.free + data.reserved, 0n);
  check(
    name('all balances are the total issuance'),
    sum === (await then.query.balances.totalIssuance()),
    then.atBlockHash,
  );
  const nonce = await client.call.accountNonceApi.accountNonce(first.address);
  check(name('calls a runtime API'), nonce === born + 2);
  await rejects(
    name('a stale nonce'),
    send(client.tx.system.remark('0x00'), first, { nonce: 1 }),
    /Stale|outdated|1010/i,
  );
  const events = await client.query.system.events();
  check(name('decodes events'), events.length > 0);
}

await main(async () => {
  const client = await DedotClient.new(new WsProvider(url));
  await exercise(client, 'v2');
  await client.disconnect();
  const legacy = await LegacyClient.new(new WsProvider(url));
  await exercise(legacy, 'legacy');
  let events = 0;
  let extrinsics = 0;
  for (const number of await lastHundred()) {
    const hash = await legacy.rpc.chain_getBlockHash(number);
    const { block } = await legacy.rpc.chain_getBlock(hash);
    extrinsics += block.extrinsics.filter(
      (bytes) => legacy.registry.$Extrinsic.tryDecode(bytes).call !== undefined,
    ).length;
    const at = await legacy.at(hash);
    events += (await at.query.system.events()).filter(({ event }) => event.pallet.length > 0).length;
  }
  check(
    'decodes every extrinsic and event of the last 100 blocks',
    extrinsics > 100 && events > extrinsics,
    `${events}`,
  );
  await legacy.disconnect();
});
