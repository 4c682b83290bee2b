/**
 * Sends transactions of every kind until whoever started it ends the channel: accounts of all schemes, mortal and immortal,
 * with tips, batches, a proxy, a multisig. About one a block.
 */
import { ApiPromise, WsProvider } from '@polkadot/api';
import { createKeyMulti, encodeAddress, sortAddresses } from '@polkadot/util-crypto';
import { people, UNIT, url } from '../check.mjs';

const api = await ApiPromise.create({ provider: new WsProvider(url), noInitWarn: true });
const { funder, own } = await people('traffic');
let stopped = false;
process.once('disconnect', () => {
  stopped = true;
});

/** Resolves when it is in a block, whatever became of it there. */
const send = (call, signer, options = {}) =>
  new Promise((resolve, reject) => {
    call
      .signAndSend(signer, options, ({ status, isError }) => {
        if (isError) reject(new Error(`${status}`));
        // The library drops the news of a block if that of its finality comes while it reads the block.
        if (status.isInBlock || status.isFinalized) resolve();
      })
      .catch(reject);
  });

const [first, second, third] = own.map(({ pair }) => pair);
for (const pair of [first, second, third]) {
  await send(api.tx.balances.transferKeepAlive(pair.address, 10_000n * UNIT), funder);
}
const signatories = sortAddresses([first.address, second.address], 42);
const multi = encodeAddress(createKeyMulti(signatories, 2), 42);
await send(api.tx.balances.transferKeepAlive(multi, 1_000n * UNIT), funder);
await send(api.tx.proxy.addProxy(second.address, 'Any', 0), first);

const transfer = (to, value) => api.tx.balances.transferKeepAlive(to, value);
/** Both halves of a multisig: the second one's approval carries it out. */
async function together(call) {
  const { weight } = await transfer(third.address, 1n).paymentInfo(first);
  await send(api.tx.multisig.asMulti(2, [second.address], null, call, weight), first);
  const [[, opened]] = await api.query.multisig.multisigs.entries(multi);
  await send(api.tx.multisig.asMulti(2, [first.address], opened.unwrap().when, call, weight), second);
}
const rounds = [
  () => send(transfer(second.address, UNIT), first, { tip: 5n }),
  () => send(transfer(third.address, UNIT), second, { era: 0 }),
  () => send(transfer(first.address, UNIT), third, { era: 256, tip: 1n }),
  () => send(api.tx.utility.batchAll([transfer(first.address, 1n), transfer(second.address, 2n)]), third),
  () => send(api.tx.utility.forceBatch([transfer(funder.address, 10n ** 36n), api.tx.system.remark('0x01')]), first),
  () => send(api.tx.proxy.proxy(first.address, null, transfer(third.address, UNIT)), second),
  () => together(transfer(third.address, 1n)),
  () => send(api.tx.system.remarkWithEvent('0x0102'), first),
  // Fails in its block.
  () => send(transfer(funder.address, 10n ** 36n), first),
];
for (let i = 0; !stopped; i++) await rounds[i % rounds.length]();
await api.disconnect();
