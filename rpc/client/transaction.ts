/** Transactions as bytes: what is signed and what is sent, by the runtime's own list of extensions. */
import { encodeSigned, signedMessage, withLength } from '../../runtime/executive/extrinsic.ts';
import { extensions } from '../../runtime/extensions.ts';
import type { Hashing } from '../../runtime/host.ts';
import { ScaleError, Sink } from '../../runtime/primitives/scale/io.ts';
import type { Balance, Era, Hash, Nonce } from '../../runtime/primitives/types.ts';
import { VERSION } from '../../runtime/version.ts';
import { LedgerError } from './errors.ts';
import { multiSignatureOf, type Signer } from './signer.ts';

/** What a transaction carries and proves beside its call. */
export interface TransactionTerms {
  readonly nonce: Nonce;
  readonly era: Era;
  /** Hash of the block that the era begins with; that of the genesis block where it never ends. */
  readonly eraBirth: Hash;
  readonly genesisHash: Hash;
  readonly tip: Balance;
}

interface Carried {
  readonly extra: Uint8Array;
  readonly implicit: Uint8Array;
}

const LIST = extensions({
  ...VERSION,
  metadataHash: () => {
    throw new Error('a client proves no metadata hash');
  },
});

/** Throws a LedgerError `UNKNOWN_EXTENSION` where the runtime asks for something that this client knows nothing of. */
function carried({ nonce, era, eraBirth, genesisHash, tip }: TransactionTerms): Carried {
  // Signed under the versions that these definitions are of: a chain with others refuses the signature.
  const extra: Readonly<Record<string, unknown>> = {
    CheckMortality: era,
    CheckNonce: nonce,
    ChargeTransactionPayment: tip,
    CheckMetadataHash: { mode: { type: 'Disabled' } },
  };
  const implicit: Readonly<Record<string, unknown>> = {
    CheckSpecVersion: VERSION.specVersion,
    CheckTxVersion: VERSION.transactionVersion,
    CheckGenesis: genesisHash,
    CheckMortality: eraBirth,
  };
  const [extras, implicits] = [new Sink(), new Sink()];
  for (const { name, extra: extraCodec, implicit: implicitCodec } of LIST) {
    try {
      extraCodec.encodeTo(extras, extra[name] ?? {});
      implicitCodec.encodeTo(implicits, implicit[name]);
    } catch (problem) {
      if (problem instanceof ScaleError || !(name in extra || name in implicit)) {
        throw new LedgerError('UNKNOWN_EXTENSION', `the extension ${name} cannot be filled in`, { cause: problem });
      }
      throw problem;
    }
  }
  return { extra: extras.finish(), implicit: implicits.finish() };
}

/** The transaction as it is sent, with its length in front. `call` is encoded. */
export async function signTransaction(
  hashing: Pick<Hashing, 'blake2_256'>,
  signer: Signer,
  call: Uint8Array,
  terms: TransactionTerms,
): Promise<Uint8Array> {
  const { extra, implicit } = carried(terms);
  const signature = await signer.sign(signedMessage(hashing, { call, extra, implicit }));
  return assemble(signer, call, extra, signature);
}

const assemble = (
  { scheme, account }: Pick<Signer, 'scheme' | 'account'>,
  call: Uint8Array,
  extra: Uint8Array,
  signature: Uint8Array,
): Uint8Array =>
  withLength(encodeSigned({ signer: account, signature: multiSignatureOf(scheme, signature), extra, call }));

/** As long as the signed one, with zeroes for the signature: what the fee is asked with. */
export function unsignedLike(
  who: Pick<Signer, 'scheme' | 'account'>,
  call: Uint8Array,
  terms: TransactionTerms,
): Uint8Array {
  const zeroes = new Uint8Array(who.scheme === 'ecdsa' ? 65 : 64);
  return assemble(who, call, carried(terms).extra, zeroes);
}
