/** What finding peers speaks of Kademlia, by bytes written out by hand, and what of it is refused. */
import t from 'tap';
import {
  decodeContacts,
  decodeFindNode,
  encodeContacts,
  encodeFindNode,
  MAX_CONTACT_ADDRESSES,
  MAX_CONTACTS,
} from '../../p2p/protocols/kademlia.ts';
import { bytesField, varintField } from '../../p2p/wire/protobuf.ts';
import { concatBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';

t.test('FIND_NODE', async (test) => {
  const key = Uint8Array.of(1, 2, 3);
  test.equal(toHex(encodeFindNode(key)), '0x08041203010203', 'type 4, and the key');
  test.same(decodeFindNode(fromHex('0x08041203010203')), key);
  // As js-libp2p and rust-libp2p send it, with a cluster level.
  test.same(decodeFindNode(fromHex('0x0804120301020350' + '01')), key);
  const named = { PUT_VALUE: 0, GET_VALUE: 1, ADD_PROVIDER: 2, GET_PROVIDERS: 3, PING: 5 };
  for (const [name, type] of Object.entries(named)) {
    const message = concatBytes(varintField(1, type), bytesField(2, key));
    test.throws(() => decodeFindNode(message), { code: 'REFUSED' }, name);
  }
  test.throws(() => decodeFindNode(fromHex('0x0804')), { code: 'MALFORMED' }, 'no key');
  test.throws(() => decodeFindNode(concatBytes(varintField(1, 4), bytesField(2, new Uint8Array(129)))), {
    code: 'MALFORMED',
  });
});

t.test('contacts', async (test) => {
  const one = { id: Uint8Array.of(9), addresses: [Uint8Array.of(4, 5), Uint8Array.of(6)] };
  test.equal(toHex(encodeContacts([one])), '0x0804420a0a0109120204051201' + '06');
  test.same(decodeContacts(encodeContacts([one])), [one]);
  const many = { id: Uint8Array.of(1), addresses: Array.from({ length: 50 }, () => Uint8Array.of(1)) };
  const told = decodeContacts(encodeContacts(Array.from({ length: 50 }, () => many)));
  test.equal(told.length, MAX_CONTACTS);
  test.equal(told[0]!.addresses.length, MAX_CONTACT_ADDRESSES);
  test.same(decodeContacts(encodeContacts([{ id: Uint8Array.of(1), addresses: [] }])), [], 'nowhere to be reached');
});
