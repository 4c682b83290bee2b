/** Bounded parameters: what can be set, by root and by chain specs. */
import t from 'tap';
import { error } from '../../../runtime/framework/dispatch.ts';
import { pallet } from '../../../runtime/framework/pallet.ts';
import { boundedParameters } from '../../../runtime/framework/parameters.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { storage } from '../../../runtime/framework/storage.ts';
import { u32, u128 } from '../../../runtime/primitives/scale/codec.ts';
import { chainOf } from './chain.ts';

const parameters = boundedParameters(
  'test::Parameters',
  {
    blocks: { codec: u32, initial: 10, min: 2, max: 1_000, docs: 'How long.' },
    longest: { codec: u32, initial: 20, min: 2, max: 1_000, docs: 'How long at most.' },
    fee: { codec: u128, initial: 5n, min: 1n, max: 10n ** 24n, docs: 'How much.' },
  },
  { 'blocks may not exceed longest': ({ blocks, longest }) => blocks <= longest },
);
const events = { ParametersChanged: parameters.changed(0) };
const errors = { Other: error(0, 'Another.'), BadParameters: parameters.refused(1) };
const store = storage('Test', { Parameters: parameters.item });
const spec = pallet({
  name: 'Test',
  index: 10,
  storage: store,
  events,
  errors,
  constants: parameters.constants,
  calls: { setParameters: parameters.setter(0, events.ParametersChanged, errors.BadParameters) },
});
const set = (next: object): RuntimeCall => ({
  type: 'Test',
  value: { type: 'set_parameters', value: { parameters: { ...parameters.initial, ...next } } },
});

t.test('root sets what lies within the bounds, and nothing else', async (test) => {
  const chain = await chainOf([spec]);
  for (const next of [
    { blocks: 0 },
    { blocks: 1 },
    { longest: 1_001 },
    { longest: 0xffffffff },
    { fee: 0n },
    { fee: 2n ** 128n - 1n },
    { blocks: 21 },
  ]) {
    test.equal(
      chain.root(set(next)),
      'Test.BadParameters',
      JSON.stringify(next, (_, each) => String(each)),
    );
  }
  test.same(parameters.get(chain.host), { blocks: 10, longest: 20, fee: 5n });
  for (const next of [{ blocks: 2, longest: 2 }, { blocks: 1_000, longest: 1_000 }, { fee: 1n }, { fee: 10n ** 24n }]) {
    test.equal(chain.root(set(next)), undefined);
    test.same(parameters.get(chain.host), { ...parameters.initial, ...next });
  }
});

t.test('chain specs: any of the fields, amounts as text, nothing unknown, nothing out of bounds', async (test) => {
  const chain = await chainOf([spec]);
  parameters.begin(chain.host, undefined);
  test.same(parameters.get(chain.host), parameters.initial);
  parameters.begin(chain.host, { blocks: 3, fee: '1000000000000000000' });
  test.same(parameters.get(chain.host), { blocks: 3, longest: 20, fee: 10n ** 18n });
  const begin = (config: object) => () => parameters.begin(chain.host, config);
  test.throws(begin({ blocks: 0xffffffff }), /blocks must lie in 2 … 1000/);
  test.throws(begin({ blocks: 30 }), /blocks may not exceed longest/);
  test.throws(begin({ block: 3 }), /no parameter block/);
  test.throws(begin({ blocks: 2.5 }), /must be an integer/);
  test.throws(begin({ blocks: '3' }), /must be an integer/);
  test.throws(begin({ fee: '1e18' }), /must be an integer/);
});

t.test('a definition whose defaults break its own bounds is none', async (test) => {
  test.throws(
    () => boundedParameters('x::Y', { a: { codec: u32, initial: 0, min: 1, max: 2, docs: '' } }),
    /a must lie in 1 … 2/,
  );
});

t.test('the metadata names the bounds', async (test) => {
  const chain = await chainOf([spec]);
  const { MinParameters, MaxParameters } = parameters.constants;
  test.same(MinParameters.value(chain.host), { blocks: 2, longest: 2, fee: 1n });
  test.same(MaxParameters.value(chain.host), { blocks: 1_000, longest: 1_000, fee: 10n ** 24n });
});
