import { ApiPromise, HttpProvider, WsProvider } from '@polkadot/api';
import { u8aToHex } from '@polkadot/util';
import { merkleizeMetadata } from '@polkadot-api/merkleize-metadata';
import { check, INHERENTS, lastHundred, main, nonceOf, people, rejects, UNIT, url, within } from '../check.mjs';

const heads = (subscribe, count) =>
  new Promise((resolve, reject) => {
    const seen = [];
    let stop = () => {};
    subscribe((header) => {
      seen.push(header.number.toNumber());
      if (seen.length === count) {
        stop();
        resolve(seen);
      }
    }).then((unsubscribe) => {
      stop = unsubscribe;
    }, reject);
  });

const rising = (numbers) => numbers.every((each, i) => i === 0 || each > numbers[i - 1]);

await main(async () => {
  const provider = new WsProvider(url);
  const api = await ApiPromise.create({ provider });
  const { funder, own } = await people('polkadot-js');
  const [chain, health, methods] = await Promise.all([
    api.rpc.system.chain(),
    api.rpc.system.health(),
    api.rpc.rpc.methods(),
  ]);
  check('chain data', chain.toString().length > 0 && health.isSyncing.isFalse && methods.methods.length > 60);
  check('metadata of the latest version', api.runtimeMetadata.version === 16);
  const best = within(
    heads((each) => api.rpc.chain.subscribeNewHeads(each), 3),
    30_000,
    'best heads',
  );
  const final = within(
    heads((each) => api.rpc.chain.subscribeFinalizedHeads(each), 3),
    30_000,
    'finalized heads',
  );
  const all = within(
    heads((each) => api.rpc.chain.subscribeAllHeads(each), 3),
    30_000,
    'all heads',
  );
  check('follows best heads', rising(await best));
  check('follows finalized heads', rising(await final));
  check('follows all heads', (await all).length === 3);

  const send = (call, signer, options = {}) =>
    within(
      new Promise((resolve, reject) => {
        call
          .signAndSend(signer, options, ({ status, events, dispatchError, isError }) => {
            if (isError || dispatchError !== undefined) reject(new Error(`${status} ${dispatchError}`));
            if (!status.isFinalized) return;
            const paid = events.find(({ event }) => api.events.transactionPayment.TransactionFeePaid.is(event));
            resolve({ fee: paid.event.data.actualFee.toBigInt(), tip: paid.event.data.tip.toBigInt() });
          })
          .catch(reject);
      }),
      40_000,
      'a transaction',
    );
  for (const { type, pair } of own) {
    const call = api.tx.balances.transferKeepAlive(pair.address, 20n * UNIT);
    const { partialFee } = await call.paymentInfo(funder);
    const { fee } = await send(call, funder);
    check(
      `the fee estimated is charged (to an ${type} account)`,
      fee === partialFee.toBigInt(),
      `${fee} ${partialFee}`,
    );
  }
  const born = await nonceOf(own[0].pair.address);
  for (const { type, pair } of own) {
    const back = api.tx.balances.transferKeepAlive(funder.address, UNIT);
    const { fee, tip } = await send(back, pair, { era: 0, tip: 77n });
    check(`${type}, immortal, with a tip`, tip === 77n && fee > 77n);
    const { partialFee } = await back.paymentInfo(pair, { era: 16 });
    // The client estimates with a made-up signature of 64 bytes; one of ecdsa has 65, and each byte costs.
    const signed = await api.tx.balances
      .transferKeepAlive(funder.address, UNIT)
      .signAsync(pair, { era: 16, nonce: -1 });
    const exact = await api.rpc.payment.queryInfo(signed.toHex());
    const expected = (type === 'ecdsa' ? exact.partialFee : partialFee).toBigInt();
    const mortal = await send(back, pair, { era: 16 });
    check(`${type}, mortal`, mortal.fee === expected, `${mortal.fee} ${expected}`);
  }
  const [{ pair: first }] = own;
  const remarks = [1, 2, 3].map((n) => api.tx.system.remark(`0x0${n}`));
  for (const kind of ['batch', 'batchAll', 'forceBatch']) {
    const { fee } = await send(api.tx.utility[kind](remarks), first);
    check(`utility.${kind}`, fee > 0n);
  }

  const read = await api.query.system.account(first.address);
  check(
    'reads an account',
    read.nonce.toNumber() === born + 5 && read.data.free.toBigInt() > 10n * UNIT,
    read.nonce.toNumber(),
  );
  const then = await api.at(await api.rpc.chain.getFinalizedHead());
  const entries = await then.query.system.account.entries();
  const sum = entries.reduce((total, [, { data }]) => total + data.free.toBigInt() + data.reserved.toBigInt(), 0n);
  check('all balances are the total issuance', sum === (await then.query.balances.totalIssuance()).toBigInt());
  const watched = await within(
    new Promise((resolve, reject) => {
      let stop = () => {};
      let count = 0;
      api.query.timestamp
        .now(() => {
          if (++count < 3) return;
          stop();
          resolve(count);
        })
        .then((unsubscribe) => {
          stop = unsubscribe;
        }, reject);
    }),
    30_000,
    'a storage subscription',
  );
  check('follows storage', watched === 3);
  const proof = await api.rpc.state.getReadProof([api.query.timestamp.now.key()]);
  check('a read proof', proof.proof.length > 1);

  const metadata = (await api.call.metadata.metadataAtVersion(15)).unwrap();
  const digest = merkleizeMetadata(metadata.toU8a(true), { decimals: 18, tokenSymbol: 'OPEN' }).digest();
  const { fee: signedFee } = await send(api.tx.system.remark('0x05'), first, {
    mode: 1,
    metadataHash: u8aToHex(digest),
  });
  check('as a hardware wallet, with the digest of the metadata', signedFee > 0n);

  const bad = api.tx.balances.transferKeepAlive(funder.address, UNIT);
  await rejects('a stale nonce', bad.signAndSend(first, { nonce: 0 }), /1010.*outdated/i);
  const { own: strangers } = await people('polkadot-js-nobody');
  await rejects('nobody to pay', bad.signAndSend(strangers[0].pair), /1010.*pay/i);
  const signed = await api.tx.system.remark('0x00').signAsync(first, { nonce: -1 });
  const broken = signed.toU8a();
  broken[60] ^= 1;
  await rejects('a broken signature', api.rpc.author.submitExtrinsic(broken), /1010.*bad signature/i);
  await rejects('no extrinsic at all', provider.send('author_submitExtrinsic', ['0x1234']), /1001/);
  await api.rpc.author.submitExtrinsic(signed);
  await rejects('the same again', api.rpc.author.submitExtrinsic(signed), /1013/);
  const future = await api.tx.system
    .remark('0x01')
    .signAsync(first, { nonce: (await api.rpc.system.accountNextIndex(first.address)).toNumber() + 5 });
  const status = await within(
    new Promise((resolve, reject) => api.rpc.author.submitAndWatchExtrinsic(future, resolve).catch(reject)),
    10_000,
    'a future status',
  );
  check('a future nonce waits', status.isFuture, status.toString());
  check('the connection lives on', api.isConnected);

  const http = await ApiPromise.create({ provider: new HttpProvider(url.replace('ws:', 'http:')), noInitWarn: true });
  check('over HTTP', (await http.query.balances.totalIssuance()).toBigInt() > 0n);

  let extrinsics = 0;
  let signed4 = 0;
  let events = 0;
  for (const number of await lastHundred()) {
    const hash = await api.rpc.chain.getBlockHash(number);
    const { block } = await api.rpc.chain.getBlock(hash);
    const at = await api.at(hash);
    extrinsics += block.extrinsics.filter(({ method }) => method.section.length > 0).length;
    signed4 += block.extrinsics.filter(({ isSigned }) => isSigned).length;
    events += (await at.query.system.events()).filter(({ event }) => event.method.length > 0).length;
  }
  check(
    'decodes every extrinsic and event of the last 100 blocks',
    extrinsics === 100 * INHERENTS + signed4 && signed4 > 10 && events > extrinsics,
    `${extrinsics} ${signed4} ${events}`,
  );
  await http.disconnect();
  await api.disconnect();
});
