/** Pallets' own readers over the state of a block: nothing is written, nothing executed. */
import type { Hashing, Host, Signatures } from '../../runtime/host.ts';
import type { StateView } from '../ports/chain.ts';

const readOnly = (): never => {
  throw new Error('the state of a finished block is only read');
};

export function stateReader(view: StateView, hashing: Hashing, signatures: Signatures): Host {
  return {
    get: (key) => view.get(key),
    exists: (key) => view.get(key) !== undefined,
    nextKey: (key) => view.nextKey(key),
    put: readOnly,
    delete: readOnly,
    clearPrefix: readOnly,
    append: readOnly,
    beginTransaction: readOnly,
    commitTransaction: readOnly,
    rollbackTransaction: readOnly,
    storageRoot: () => view.root,
    orderedTrieRoot: readOnly,
    submitTransaction: () => false,
    log: () => {},
    ...hashing,
    verifySr25519: (signature, message, key) => signatures.verifySr25519(signature, message, key),
    verifyEd25519: (signature, message, key) => signatures.verifyEd25519(signature, message, key),
    recoverEcdsa: (signature, digest) => signatures.recoverEcdsa(signature, digest),
  };
}
