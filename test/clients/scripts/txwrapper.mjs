import { construct, createMetadata, decode, getRegistry, methods } from '@substrate/txwrapper-polkadot';
import { check, main, people, UNIT, url } from '../check.mjs';

const http = url.replace('ws:', 'http:');
async function rpc(method, ...params) {
  const response = await fetch(http, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
  });
  const { result, error } = await response.json();
  if (error !== undefined) throw Object.assign(new Error(error.message), error);
  return result;
}

await main(async () => {
  const { alice, own } = await people('txwrapper');
  const { block } = await rpc('chain_getBlock');
  const blockHash = await rpc('chain_getBlockHash');
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

  const send = async (from, dest, value, options) => {
    const { address, type } = from;
    const nonce = await rpc('system_accountNextIndex', address);
    const unsigned = methods.balances.transferKeepAlive(
      { dest: { id: dest }, value: String(value) },
      {
        address,
        blockHash,
        blockNumber: registry.createType('BlockNumber', block.header.number).toNumber(),
        eraPeriod: 64,
        genesisHash,
        metadataRpc,
        nonce,
        specVersion,
        tip: 0,
        transactionVersion,
        ...options,
      },
      { metadataRpc, registry },
    );
    const payload = construct.signingPayload(unsigned, { registry });
    const { signature } = registry.createType('ExtrinsicPayload', payload, { version: 4 }).sign(from);
    const tx = construct.signedTx(unsigned, signature, { metadataRpc, registry });
    const decoded = decode(tx, { metadataRpc, registry });
    check(`${type}: decodes what it made`, decoded.method.name === 'transferKeepAlive' && decoded.nonce === nonce);
    const hash = await rpc('author_submitExtrinsic', tx);
    check(`${type}: the hash is as computed`, hash === construct.txHash(tx));
    for (let i = 0; i < 200; i++) {
      if ((await rpc('system_accountNextIndex', address)) > nonce) {
        const now = await rpc(
          'state_call',
          'AccountNonceApi_account_nonce',
          `0x${Buffer.from(from.publicKey).toString('hex')}`,
        );
        if (Buffer.from(now.slice(2), 'hex').readUInt32LE() > nonce) return true;
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return false;
  };
  const [sr] = own;
  check('a transfer from Alice', await send(alice, sr.pair.address, 20n * UNIT));
  check('sr25519, with a tip', await send(sr.pair, alice.address, UNIT, { tip: 5 }));
});
