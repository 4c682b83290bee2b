/**
 * `/<genesis>/kad`, as far as finding peers goes (libp2p specification, "Kademlia DHT"): `FIND_NODE` and its answer. Records of values and
 * of providers, which anybody could have this node keep, are no part of it.
 */
import { concatBytes, joinBytes } from '../../runtime/primitives/bytes.ts';
import { NetworkError } from '../host/errors.ts';
import { bytesField, bytesOf, numberOf, readFields, varintField } from '../wire/protobuf.ts';

const TYPE = 1;
const KEY = 2;
const CLOSER = 8;
const FIND_NODE = 4;
const PEER_ID = 1;
const PEER_ADDRESS = 2;

export const MAX_KADEMLIA_REQUEST = 1_024;
export const MAX_KADEMLIA_RESPONSE = 64 * 1_024;
/** Kademlia's k: contacts of one answer. */
export const MAX_CONTACTS = 20;
export const MAX_CONTACT_ADDRESSES = 8;
const MAX_KEY_BYTES = 128;
const MAX_ADDRESS_BYTES = 256;

export interface Contact {
  /** The peer id's multihash. */
  readonly id: Uint8Array;
  /** Multiaddresses in bytes. */
  readonly addresses: readonly Uint8Array[];
}

export const encodeFindNode = (key: Uint8Array): Uint8Array =>
  concatBytes(varintField(TYPE, FIND_NODE), bytesField(KEY, key));

/** The key. Throws {@link NetworkError} `MALFORMED`; `REFUSED` for what is asked beside nodes. */
export function decodeFindNode(message: Uint8Array): Uint8Array {
  let type = 0;
  let key: Uint8Array | undefined;
  for (const field of readFields(message)) {
    if (field.number === TYPE) type = numberOf(field);
    else if (field.number === KEY) key = bytesOf(field);
  }
  if (type !== FIND_NODE) throw new NetworkError('REFUSED', `kademlia: message ${type} is not served here`);
  if (key === undefined || key.length > MAX_KEY_BYTES) throw new NetworkError('MALFORMED', 'kademlia: no such key');
  return key;
}

export const encodeContacts = (contacts: readonly Contact[]): Uint8Array =>
  joinBytes([
    varintField(TYPE, FIND_NODE),
    ...contacts.map(({ id, addresses }) =>
      bytesField(
        CLOSER,
        joinBytes([bytesField(PEER_ID, id), ...addresses.map((each) => bytesField(PEER_ADDRESS, each))]),
      ),
    ),
  ]);

/** What is beyond the limits is left out. Throws {@link NetworkError} `MALFORMED`. */
export function decodeContacts(message: Uint8Array): readonly Contact[] {
  const contacts: Contact[] = [];
  for (const field of readFields(message)) {
    if (field.number !== CLOSER || contacts.length === MAX_CONTACTS) continue;
    let id: Uint8Array | undefined;
    const addresses: Uint8Array[] = [];
    for (const inner of readFields(bytesOf(field))) {
      if (inner.number === PEER_ID) id = bytesOf(inner).slice();
      else if (inner.number === PEER_ADDRESS && addresses.length < MAX_CONTACT_ADDRESSES) {
        const address = bytesOf(inner);
        if (address.length <= MAX_ADDRESS_BYTES) addresses.push(address.slice());
      }
    }
    if (id !== undefined && id.length <= MAX_KEY_BYTES && addresses.length > 0) contacts.push({ id, addresses });
  }
  return contacts;
}
