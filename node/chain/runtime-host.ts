/** What the runtime reaches of this node: a state with changes on top, hashing, signatures, the log. */

import type { Hashing, Host, Signatures, Storage } from '../../runtime/host.ts';
import type { Log } from '../ports/machine.ts';
import { orderedTrieRoot } from '../state/trie.ts';

/** `submit` takes unsigned transactions that the runtime makes; without it there is no pool, as while a block is executed. */
export function runtimeHost(
  storage: Storage,
  hashing: Hashing,
  signatures: Signatures,
  log: Log,
  submit: (extrinsic: Uint8Array) => boolean = () => false,
): Host {
  return {
    get: (key) => storage.get(key),
    put: (key, value) => storage.put(key, value),
    delete: (key) => storage.delete(key),
    exists: (key) => storage.exists(key),
    nextKey: (key) => storage.nextKey(key),
    clearPrefix: (prefix, limit) => storage.clearPrefix(prefix, limit),
    append: (key, item) => storage.append(key, item),
    beginTransaction: () => storage.beginTransaction(),
    commitTransaction: () => storage.commitTransaction(),
    rollbackTransaction: () => storage.rollbackTransaction(),
    storageRoot: (version) => storage.storageRoot(version),
    ...hashing,
    verifySr25519: (signature, message, key) => signatures.verifySr25519(signature, message, key),
    verifyEd25519: (signature, message, key) => signatures.verifyEd25519(signature, message, key),
    recoverEcdsa: (signature, hash) => signatures.recoverEcdsa(signature, hash),
    orderedTrieRoot: (items) => orderedTrieRoot(hashing.blake2_256, items),
    submitTransaction: submit,
    log(level, target, message) {
      if (level !== 'trace') log(level, message, { target });
    },
  };
}
