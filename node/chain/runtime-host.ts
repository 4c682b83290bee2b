/** What the runtime reaches of this node: a state with changes on top, hashing, signatures, the log. */

import { type Hashing, type Host, HostFault, type Signatures, type Storage } from '../../runtime/host.ts';
import type { Log } from '../ports/machine.ts';
import { orderedTrieRoot } from '../state/trie.ts';

/**
 * What a storage throws is a fault of this machine, which the runtime must not take for the failure of a call. A stack
 * that overflows in the storage is not the storage's fault.
 */
const faultOf = (problem: unknown): unknown =>
  problem instanceof HostFault || problem instanceof RangeError
    ? problem
    : new HostFault(problem instanceof Error ? problem.message : String(problem), { cause: problem });

/** `submit` takes unsigned transactions that the runtime makes; without it there is no pool, as while a block is executed. */
export function runtimeHost(
  storage: Storage,
  hashing: Hashing,
  signatures: Signatures,
  log: Log,
  submit: (extrinsic: Uint8Array) => boolean = () => false,
): Host {
  return {
    get(key) {
      try {
        return storage.get(key);
      } catch (problem) {
        throw faultOf(problem);
      }
    },
    put: (key, value) => storage.put(key, value),
    delete: (key) => storage.delete(key),
    exists(key) {
      try {
        return storage.exists(key);
      } catch (problem) {
        throw faultOf(problem);
      }
    },
    nextKey(key) {
      try {
        return storage.nextKey(key);
      } catch (problem) {
        throw faultOf(problem);
      }
    },
    clearPrefix(prefix, limit) {
      try {
        return storage.clearPrefix(prefix, limit);
      } catch (problem) {
        throw faultOf(problem);
      }
    },
    append(key, item) {
      try {
        storage.append(key, item);
      } catch (problem) {
        throw faultOf(problem);
      }
    },
    beginTransaction: () => storage.beginTransaction(),
    commitTransaction: () => storage.commitTransaction(),
    rollbackTransaction: () => storage.rollbackTransaction(),
    storageRoot(version) {
      try {
        return storage.storageRoot(version);
      } catch (problem) {
        throw faultOf(problem);
      }
    },
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
