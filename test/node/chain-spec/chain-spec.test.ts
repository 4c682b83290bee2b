import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { Keyring } from '@polkadot/keyring';
import t from 'tap';
import { loadChainSpec, presetSpec } from '../../../node/chain-spec/built-in.ts';
import type { GenesisState } from '../../../node/chain-spec/chain-spec.ts';
import { chainSpecJson, genesisPairs, parseChainSpec, toRaw } from '../../../node/chain-spec/chain-spec.ts';
import { ChainSpecError } from '../../../node/chain-spec/errors.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { encode, u128 } from '../../../runtime/primitives/scale/codec.ts';

/** Stands in for the runtime: one pair an account. */
const balancesOnly: GenesisState = ({ balances }) =>
  balances.map(({ account, amount }) => [account, encode(u128, amount)] as const);

t.test('dev and local are what Substrate developers expect', async (t) => {
  const keyring = new Keyring({ type: 'sr25519', ss58Format: 42 });
  const address = (uri: string) => keyring.createFromUri(uri).address;
  const dev = JSON.parse(chainSpecJson(presetSpec('dev')));
  t.match(dev, {
    name: 'OpenLedger Development',
    id: 'openledger_dev',
    chainType: 'Development',
    bootNodes: [],
    properties: { ss58Format: 42, tokenDecimals: 18, tokenSymbol: 'OPEN' },
  });
  const { patch } = dev.genesis.runtimeGenesis;
  const accounts = ['Alice', 'Bob', 'Charlie', 'Dave', 'Eve', 'Ferdie'].flatMap((name) => [
    `//${name}`,
    `//${name}//stash`,
  ]);
  t.strictSame(
    patch.balances.balances,
    accounts.map((uri) => [address(uri), '10000000000000000000000000']),
  );
  t.strictSame(patch.aura, { authorities: [address('//Alice')], slotDuration: 3_000 });
  t.strictSame(patch.grandpa, { authorities: [['5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu', 1]] });
  t.strictSame(patch.sudo, { key: address('//Alice') });

  const local = presetSpec('local', { slotDurationMs: 1_000 });
  t.equal(local.chainType, 'Local');
  if (local.genesis.type !== 'config') throw new Error('raw');
  t.equal(local.genesis.config.aura.slotDurationMs, 1_000);
  t.strictSame(
    local.genesis.config.session.map(({ aura }) => keyring.encodeAddress(aura)),
    ['//Alice', '//Bob', '//Charlie', '//Dave'].map(address),
  );
});

t.test('what is written is read again', async (t) => {
  for (const id of ['dev', 'local'] as const) {
    const spec = presetSpec(id);
    t.strictSame(parseChainSpec(chainSpecJson(spec)), spec, id);
    const raw = toRaw(spec, balancesOnly);
    t.strictSame(parseChainSpec(chainSpecJson(raw)), raw, `${id}, raw`);
    t.equal(
      toRaw(raw, () => t.fail('made twice') as never),
      raw,
    );
    t.strictSame(
      genesisPairs(spec, balancesOnly),
      genesisPairs(raw, () => []),
      'the same state both ways',
    );
  }
  const full = parseChainSpec(
    JSON.stringify({
      ...JSON.parse(chainSpecJson(presetSpec('dev'))),
      chainType: { Custom: 'Rehearsal' },
      forkId: 'second',
      bootNodes: ['/dns4/boot.example/tcp/30333/ws/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp'],
      telemetryEndpoints: null,
    }),
  );
  t.strictSame(parseChainSpec(chainSpecJson(full)), full);
});

t.test('the raw genesis of a live chain', async (t) => {
  const file = new URL('../../vectors/genesis-westend.json.gz', import.meta.url);
  const { top } = JSON.parse(gunzipSync(readFileSync(file)).toString()) as { top: Record<string, string> };
  const text = JSON.stringify({
    name: 'Westend',
    id: 'westend2',
    bootNodes: [],
    genesis: { raw: { top, childrenDefault: {} } },
  });
  const spec = parseChainSpec(text);
  const pairs = genesisPairs(spec, () => []);
  t.equal(spec.chainType, 'Live');
  t.equal(pairs.length, Object.keys(top).length);
  t.ok(pairs.every(([key, value]) => top[toHex(key)] === toHex(value)));
  t.strictSame(JSON.parse(chainSpecJson(spec)).genesis.raw.top, top);
});

t.test('files', async (t) => {
  const directory = t.testdir();
  const file = join(directory, 'spec.json');
  writeFileSync(file, chainSpecJson(presetSpec('local')));
  t.strictSame(loadChainSpec(file), presetSpec('local'));
  t.strictSame(loadChainSpec('dev'), presetSpec('dev'));
  t.throws(() => loadChainSpec('constructor'), { code: 'UNKNOWN_CHAIN' });
  t.throws(() => loadChainSpec(join(directory, 'none.json')), { code: 'UNKNOWN_CHAIN' });
  t.throws(() => loadChainSpec(directory), { code: 'IO' });
});

t.test('whatever is wrong is named', async (t) => {
  const good = () => JSON.parse(chainSpecJson(presetSpec('dev')));
  // biome-ignore lint/suspicious/noExplicitAny: JSON of any shape is the point.
  const bad = (change: (spec: any) => unknown, code: ChainSpecError['code'], message: RegExp) => {
    const spec = good();
    change(spec);
    try {
      parseChainSpec(JSON.stringify(spec));
      t.fail(`accepted: ${message}`);
    } catch (problem) {
      if (!(problem instanceof ChainSpecError)) throw problem;
      t.equal(problem.code, code);
      t.match(problem.message, message);
    }
  };
  t.throws(() => parseChainSpec('{'), { code: 'NOT_JSON' });
  t.throws(() => parseChainSpec('[]'), { code: 'BAD_FIELD' });
  t.throws(() => parseChainSpec('null'), { code: 'BAD_FIELD' });
  bad((spec) => delete spec.name, 'BAD_FIELD', /^spec\.name should be a string/);
  bad((spec) => (spec.id = '../../etc'), 'BAD_FIELD', /^spec\.id /);
  bad((spec) => (spec.id = 'x'.repeat(65)), 'BAD_FIELD', /^spec\.id /);
  bad((spec) => (spec.surprise = 1), 'UNKNOWN_FIELD', /spec\.surprise/);
  bad((spec) => (spec.chainType = 'Test'), 'BAD_FIELD', /^spec\.chainType/);
  bad((spec) => (spec.bootNodes = ['/ip4/1.2.3.4/tcp/30333']), 'BAD_FIELD', /^spec\.bootNodes\[0\]/);
  bad((spec) => (spec.bootNodes = ['http://x']), 'BAD_FIELD', /^spec\.bootNodes\[0\]/);
  bad((spec) => (spec.bootNodes = 'x'), 'BAD_FIELD', /^spec\.bootNodes should be a list/);
  bad((spec) => (spec.properties.tokenDecimals = 'x'), 'BAD_FIELD', /^spec\.properties\.tokenDecimals/);
  bad((spec) => (spec.properties.ss58Format = 70_000), 'BAD_FIELD', /^spec\.properties\.ss58Format/);
  bad((spec) => (spec.genesis = {}), 'BAD_FIELD', /^spec\.genesis\.runtimeGenesis/);
  bad((spec) => (spec.genesis = { raw: {} }), 'BAD_FIELD', /^spec\.genesis\.raw\.top/);
  bad((spec) => (spec.genesis = { raw: { top: { '0x0': '0x' } } }), 'BAD_FIELD', /top\["0x0"\]/);
  bad((spec) => (spec.genesis = { raw: { top: { '0x00': 'zz' } } }), 'BAD_FIELD', /top\["0x00"\]/);
  bad((spec) => (spec.genesis = { raw: { top: {}, childrenDefault: { a: {} } } }), 'BAD_FIELD', /childrenDefault/);
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  const patch = (change: (patch: any) => unknown) => (spec: any) => change(spec.genesis.runtimeGenesis.patch);
  bad(
    patch((each) => (each.balances.balances[1][1] = '-5')),
    'BAD_FIELD',
    /balances\.balances\[1\]\[1\]/,
  );
  bad(
    patch((each) => (each.balances.balances[1][1] = (2n ** 128n).toString())),
    'BAD_FIELD',
    /balances\[1\]\[1\]/,
  );
  bad(
    patch((each) => (each.balances.balances[1][1] = 1e21)),
    'BAD_FIELD',
    /balances\[1\]\[1\]/,
  );
  bad(
    patch((each) => (each.balances.balances[1][0] = 'Alice')),
    'BAD_FIELD',
    /balances\[1\]\[0\] should be the SS58/,
  );
  bad(
    patch((each) => each.balances.balances.push(each.balances.balances[0])),
    'BAD_FIELD',
    /without repetitions/,
  );
  bad(
    patch((each) => (each.aura.slotDuration = 0)),
    'BAD_FIELD',
    /aura\.slotDuration/,
  );
  bad(
    patch((each) => (each.grandpa.authorities[0][1] = 0)),
    'BAD_FIELD',
    /grandpa\.authorities\[0\]\[1\]/,
  );
  bad(
    patch((each) => (each.session.keys[0][2] = null)),
    'BAD_FIELD',
    /session\.keys\[0\]\[2\]/,
  );
  bad(
    patch((each) => {
      each.aura.authorities = [];
      each.session.keys = [];
    }),
    'BAD_FIELD',
    /at least one authority/,
  );
  const others = (spec: ReturnType<typeof good>) => {
    const { genesis } = parseChainSpec(JSON.stringify(spec));
    return genesis.type === 'config' && genesis.config.others;
  };
  const extended = good();
  extended.genesis.runtimeGenesis.patch.datanets = { fee: '1' };
  t.strictSame(
    others(extended),
    { ...others(good()), datanets: { fee: '1' } },
    'what other modules want is kept for them',
  );
});
