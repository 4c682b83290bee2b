import { blake2AsHex, xxhashAsHex } from '@polkadot/util-crypto';
import { construct, createMetadata, decode, getRegistry, methods } from '@substrate/txwrapper-polkadot';
import { check, main, people, rejects, request as rpc, UNIT } from '../check.mjs';

/** Where the ledger keeps an account. */
const accountKey = ({ addressRaw }) =>
  ['System', 'Account'].reduce((key, name) => key + xxhashAsHex(name, 128).slice(2), '0x') +
  blake2AsHex(addressRaw, 128).slice(2) +
  Buffer.from(addressRaw).toString('hex');

await main(async () => {
  const { funder, own } = await people('txwrapper');
  const blockHash = await rpc('chain_getBlockHash');
  const { block } = await rpc('chain_getBlock', blockHash);
  const genesisHash = await rpc('chain_getBlockHash', 0);
  const metadataRpc = await rpc('state_getMetadata');
  const { specVersion, transactionVersion, specName } = await rpc('state_getRuntimeVersion');
  const properties = await rpc('system_properties');
  const registry = getRegistry({
    chainName: await rpc('system_chain'),
    specName,
    specVersion,
    metadataRpc,
    properties,
  });
  registry.setMetadata(createMetadata(registry, metadataRpc));

  const codecs = { metadataRpc, registry };

  const freeOf = async (pair) =>
    registry
      .createType('AccountInfoWithTripleRefCount', await rpc('state_getStorage', accountKey(pair)))
      .data.free.toBigInt();
  const hasSent = async ({ addressRaw }, nonce) => {
    const account = `0x${Buffer.from(addressRaw).toString('hex')}`;
    for (let i = 0; i < 300; i++) {
      const now = await rpc('state_call', 'AccountNonceApi_account_nonce', account);
      if (Buffer.from(now.slice(2), 'hex').readUInt32LE() > nonce) return true;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return false;
  };
  const optionsOf = async ({ address }, more) => ({
    address,
    blockHash,
    blockNumber: registry.createType('BlockNumber', block.header.number).toNumber(),
    eraPeriod: 64,
    genesisHash,
    metadataRpc,
    nonce: await rpc('system_accountNextIndex', address),
    specVersion,
    tip: 0,
    transactionVersion,
    ...more,
  });
  const sign = (unsigned, pair) => {
    const payload = construct.signingPayload(unsigned, { registry });
    const { signature } = registry.createType('ExtrinsicPayload', payload, { version: 4 }).sign(pair);
    return construct.signedTx(unsigned, signature, codecs);
  };
  const transfer = (to, value, { isImmortalEra = false, ...info }) =>
    methods.balances.transferKeepAlive({ dest: { id: to }, value: String(value) }, info, { ...codecs, isImmortalEra });

  /** The fee charged is what the balance lost beside value and tip. */
  const pays = async (what, pair, value, more = {}) => {
    const options = await optionsOf(pair, more);
    const tx = sign(transfer(funder.address, value, options), pair);
    // The library itself cannot read the mortality of an immortal one back.
    if (more.isImmortalEra !== true) {
      const decoded = decode(tx, codecs);
      const isSame = decoded.method.name === 'transferKeepAlive' && decoded.nonce === options.nonce;
      check(`${what}: decodes what it made`, isSame);
    }
    const { partialFee } = await rpc('payment_queryInfo', tx);
    const before = await freeOf(pair);
    const hash = await rpc('author_submitExtrinsic', tx);
    check(`${what}: the hash is as computed`, hash === construct.txHash(tx));
    check(`${what}: goes into a block`, await hasSent(pair, options.nonce));
    const fee = before - (await freeOf(pair)) - value - BigInt(options.tip);
    check(`${what}: the fee estimated is charged`, fee === BigInt(partialFee), `${fee} ${partialFee}`);
  };

  for (const { pair } of own) {
    const options = await optionsOf(funder);
    await rpc('author_submitExtrinsic', sign(transfer(pair.address, 20n * UNIT, options), funder));
    if (!(await hasSent(funder, options.nonce))) throw new Error('no money came');
  }
  for (const { type, pair } of own) {
    await pays(`${type}, mortal, with a tip`, pair, UNIT, { tip: 5 });
    await pays(`${type}, immortal`, pair, UNIT, { isImmortalEra: true, blockHash: genesisHash });
  }
  const [{ pair: first }] = own;
  const options = await optionsOf(first);
  const calls = [1n, 2n].map((value) => transfer(funder.address, value, options).method);
  const batch = sign(methods.utility.batchAll({ calls }, options, codecs), first);
  await rpc('author_submitExtrinsic', batch);
  check('a batch', await hasSent(first, options.nonce));

  const again = sign(transfer(funder.address, 1n, { ...options, nonce: 0 }), first);
  await rejects('a stale nonce', rpc('author_submitExtrinsic', again), /^1010 /);
  const { own: strangers } = await people('txwrapper-nobody');
  const [{ pair: poor }] = strangers;
  const poorly = sign(transfer(funder.address, 1n, await optionsOf(poor)), poor);
  await rejects('nobody to pay', rpc('author_submitExtrinsic', poorly), /^1010 /);
});
