/** Texts for a JSON-RPC server: requests, nearly requests, and no requests at all. */
import { concatBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { encodingOf, mutate } from './inputs.ts';
import { apis, outer, signedExtrinsic } from './ledger.ts';
import type { Random } from './random.ts';

const STRANGE: readonly unknown[] = [
  null,
  true,
  -1,
  0.5,
  Number.MAX_VALUE,
  2 ** 53,
  '',
  '0x',
  '0x0',
  '0xzz',
  '__proto__',
  '5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY',
  [],
  {},
  { __proto__: null, constructor: 1 },
  '\ud800',
  'value',
  'descendantsValues',
];

function anyValue(random: Random, genesisHash: Uint8Array, depth = 0): unknown {
  const inner = () => anyValue(random, genesisHash, depth + 1);
  switch (random.below(depth > 3 ? 6 : 10)) {
    case 0:
      return random.pick(STRANGE);
    case 1:
      return random.below(200);
    case 2:
    case 3:
      return toHex(genesisHash);
    case 4:
      return toHex(random.bytes(random.pick([0, 16, 32, 32, 48, random.below(100)])));
    case 5:
      return `0x${random.below(1000).toString(16)}`;
    case 6:
      return Array.from({ length: random.below(4) }, inner);
    case 7:
      return {
        key: toHex(random.bytes(random.below(4))),
        type: random.pick(['value', 'hash', 'descendantsHashes', 'x']),
      };
    case 8:
      return { hash: inner(), extrinsic: inner(), [random.pick(['a', '__proto__', 'key'])]: inner() };
    default:
      return toHex(signedExtrinsic(random, genesisHash));
  }
}

/** A call of the runtime whose parameters are nearly right. */
function stateCall(random: Random, genesisHash: Uint8Array): unknown[] {
  const api = random.pick(apis);
  const [name, method] = random.pick(Object.entries(api.methods));
  const exact = concatBytes(...method.inputs.map(([, codec]) => encodingOf(codec.type, random, outer)));
  const data = random.chance(0.5) ? mutate(exact, random) : exact;
  return [`${api.name}_${name}`, toHex(data), ...(random.chance(0.3) ? [toHex(genesisHash)] : [])];
}

function request(random: Random, methods: readonly string[], genesisHash: Uint8Array): unknown {
  const id = random.pick<unknown>([1, 1, 1, 'a', null, undefined, {}, 1.5, [1]]);
  if (random.chance(0.25)) {
    return { jsonrpc: '2.0', id, method: 'state_call', params: stateCall(random, genesisHash) };
  }
  const method = random.chance(0.95) ? random.pick(methods) : anyValue(random, genesisHash);
  const params = random.chance(0.9)
    ? Array.from({ length: random.below(5) }, () => anyValue(random, genesisHash))
    : anyValue(random, genesisHash);
  return { jsonrpc: random.chance(0.97) ? '2.0' : '1.0', id, method, params };
}

const DEEP = 200_000;

export function requestText(random: Random, methods: readonly string[], genesisHash: Uint8Array): string {
  const one = () => request(random, methods, genesisHash);
  switch (random.below(40)) {
    case 0:
      return Buffer.from(random.bytes(random.length(200))).toString('latin1');
    case 1:
      return JSON.stringify(Array.from({ length: random.below(60) }, one));
    case 2: {
      const depth = random.length(DEEP);
      return random.pick([
        '['.repeat(depth),
        `${'['.repeat(depth)}${']'.repeat(depth)}`,
        `{"jsonrpc":"2.0","id":1,"method":"state_call","params":${'['.repeat(depth)}${']'.repeat(depth)}}`,
        `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`,
      ]);
    }
    case 3:
    case 4:
    case 5:
      return Buffer.from(mutate(Buffer.from(JSON.stringify(one())), random)).toString();
    default:
      return JSON.stringify(one());
  }
}
