import { createClient, Enum } from 'polkadot-api';
import { getPolkadotSigner, withMetadataHash } from 'polkadot-api/signer';
import { getWsProvider } from 'polkadot-api/ws';
import { check, lastHundred, main, nonceOf, people, rejects, UNIT, url, within } from '../check.mjs';

const SCHEME = { sr25519: 'Sr25519', ed25519: 'Ed25519', ecdsa: 'Ecdsa' };
const signerOf = ({ type, pair }) => getPolkadotSigner(pair.addressRaw, SCHEME[type], (data) => pair.sign(data));

const take = (observable, count, what) =>
  within(
    new Promise((resolve, reject) => {
      const seen = [];
      const subscription = observable.subscribe({
        next(value) {
          seen.push(value);
          if (seen.length < count) return;
          setTimeout(() => subscription.unsubscribe(), 0);
          resolve(seen);
        },
        error: reject,
      });
    }),
    40_000,
    what,
  );

/** The call in an extrinsic of a body, which comes with or without its length prefix; the library decodes calls alone. */
function callOf(extrinsic) {
  let at = 0;
  const skipCompact = () => {
    const mode = extrinsic[at] & 3;
    at += mode < 3 ? 1 << mode : 5 + (extrinsic[at] >> 2);
  };
  // No version of an extrinsic is a length that fits: 0x84 says 33 bytes, 0x04 one.
  skipCompact();
  const version = extrinsic[at];
  const hasPrefix = (version === 0x84 || version === 0x04) && extrinsic.length > at + 1;
  if (!hasPrefix) at = 0;
  if (extrinsic[at++] !== 0x84) return extrinsic.slice(at);
  at += 33;
  at += extrinsic[at] === 2 ? 66 : 65;
  at += extrinsic[at] === 0 ? 1 : 2;
  skipCompact();
  skipCompact();
  return extrinsic.slice(at + 1);
}

await main(async () => {
  const client = createClient(getWsProvider(url));
  const api = client.getUnsafeApi();
  const { funder, own } = await people(process.argv[3] ?? 'papi');
  const spec = await client.getChainSpecData();
  check('chain data', spec.genesisHash.length === 66 && spec.name.length > 0 && spec.properties.ss58Format === 42);
  const version = await api.constants.System.Version();
  check('reads constants', version.spec_name === 'openledger');
  const finalized = await take(client.finalizedBlock$, 3, 'finalized blocks');
  check('follows finalized blocks', finalized[2].number > finalized[0].number);
  const best = await take(client.bestBlocks$, 3, 'best blocks');
  check(
    'follows best blocks',
    best.every((blocks) => blocks.length > 0),
  );

  const root = signerOf({ type: 'sr25519', pair: funder });
  const transfer = (to, value) => api.tx.Balances.transfer_keep_alive({ dest: Enum('Id', to), value });
  const paid = (result) =>
    result.events.find(({ type, value }) => type === 'TransactionPayment' && value.type === 'TransactionFeePaid').value
      .value;
  for (const { type, pair } of own) {
    const call = transfer(pair.address, 20n * UNIT);
    const estimated = await call.getEstimatedFees(funder.address);
    const result = await within(call.signAndSubmit(root), 60_000, 'a transaction');
    check(
      `the fee estimated is charged (to an ${type} account)`,
      result.ok && paid(result).actual_fee === estimated,
      `${estimated}`,
    );
  }
  const born = await nonceOf(own[0].pair.address);
  for (const each of own) {
    const call = transfer(funder.address, UNIT);
    const immortal = await within(
      call.signAndSubmit(signerOf(each), { mortality: { mortal: false }, tip: 77n }),
      60_000,
      'a transaction',
    );
    check(`${each.type}, immortal, with a tip`, immortal.ok && paid(immortal).tip === 77n);
    const mortal = await within(
      call.signAndSubmit(signerOf(each), { mortality: { mortal: true, period: 16 } }),
      60_000,
      'a transaction',
    );
    check(`${each.type}, mortal`, mortal.ok);
  }
  const calls = [1, 2].map((n) => api.tx.System.remark({ remark: Uint8Array.of(n) }).decodedCall);
  const batch = await within(api.tx.Utility.batch_all({ calls }).signAndSubmit(signerOf(own[0])), 60_000, 'a batch');
  check('a batch', batch.ok && batch.events.some(({ value }) => value.type === 'BatchCompleted'));

  const account = await api.query.System.Account.getValue(own[0].pair.address, { at: 'best' });
  check('reads an account', account.nonce === born + 3, account.nonce);
  const { hash: at } = await client.getFinalizedBlock();
  const entries = await api.query.System.Account.getEntries({ at });
  const issuance = await api.query.Balances.TotalIssuance.getValue({ at });
  const sum = entries.reduce((total, { value }) => total + value.data.free + value.data.reserved, 0n);
  check('all balances are the total issuance', sum === issuance, `${sum} ${issuance}`);
  const watched = await take(api.query.Timestamp.Now.watchValue({ at: 'best' }), 3, 'a storage value');
  check('follows storage', watched.length === 3);
  const nonce = await api.apis.AccountNonceApi.account_nonce(own[0].pair.address);
  check('calls a runtime API', nonce === born + 3);
  const hardware = withMetadataHash({ decimals: 18, tokenSymbol: 'OPEN' }, signerOf(own[0]));
  const remark = api.tx.System.remark({ remark: Uint8Array.of(5) });
  const signed = await within(remark.signAndSubmit(hardware), 60_000, 'a transaction');
  check('as a hardware wallet, with the digest of the metadata', signed.ok);

  await rejects(
    'a stale nonce',
    within(transfer(funder.address, UNIT).signAndSubmit(signerOf(own[0]), { nonce: 0 }), 30_000, 'an answer'),
    /Stale/,
  );
  const { own: strangers } = await people('papi-nobody');
  await rejects(
    'nobody to pay',
    within(transfer(funder.address, UNIT).signAndSubmit(signerOf(strangers[0])), 30_000, 'an answer'),
    /Payment/,
  );
  check('the connection lives on', (await api.query.System.Number.getValue()) > 0);

  let events = 0;
  let extrinsics = 0;
  for (const height of await lastHundred()) {
    const hash = await client._request('chain_getBlockHash', [height]);
    for (const bytes of await client.getBlockBody(hash)) {
      const { decodedCall } = await api.txFromCallData(callOf(bytes));
      if (decodedCall.value.type.length > 0) extrinsics++;
    }
    events += (await api.query.System.Events.getValue({ at: hash })).filter(
      ({ event }) => event.type.length > 0,
    ).length;
  }
  check('decodes every call and event of the last 100 blocks', extrinsics > 100 && events > extrinsics, `${events}`);
  client.destroy();
});
