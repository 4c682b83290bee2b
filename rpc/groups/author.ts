/** `author_*`: transactions on their way into blocks, and the keys of this node. */
import type { Client, Keystore, TransactionStatus } from '../../node/ports/chain.ts';
import type { Hashing } from '../../runtime/host.ts';
import { fromUtf8, joinBytes } from '../../runtime/primitives/bytes.ts';
import { bytes, decode, encode, fixedBytes, option, tuple, vec } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { ownershipStatement } from '../../runtime/primitives/session-keys.ts';
import { asAccountId, type Hash } from '../../runtime/primitives/types.ts';
import { RpcError, responseTooBig } from '../server/errors.ts';
import { hexOf, withLength } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { either, hash, hex, list, object, text } from '../server/params.ts';
import type { Subscription } from '../server/subscription.ts';
import type { ChainView } from './chain-view.ts';
import { extrinsicOf, poolRefusal, transactionHash } from './transactions.ts';

interface AuthorContext {
  readonly view: ChainView;
  readonly client: Client;
  readonly keystore: Keystore;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly sessionKeyTypes: readonly string[];
}

const { method, subscription } = definitions<AuthorContext>();

const MAX_REMOVED = 1_024;
/** Extrinsics that are made text of in one turn. */
const PART = 1_024;
const FINAL: ReadonlySet<TransactionStatus['type']> = new Set([
  'finalized',
  'finalityTimeout',
  'usurped',
  'dropped',
  'invalid',
]);
const keyError = (why: string): RpcError => new RpcError(1040, `Keystore error: ${why}`);
const keyType = text('keyType', 4);
const decodedKeys = option(vec(tuple(bytes(), fixedBytes(4)), 64));

const statusJson = (status: TransactionStatus, nameOf: (poolHash: Hash) => Hash): unknown => {
  switch (status.type) {
    case 'future':
    case 'ready':
    case 'dropped':
    case 'invalid':
      return status.type;
    case 'broadcast':
      return { broadcast: status.peers };
    case 'usurped':
      return { usurped: hexOf(nameOf(status.by)) };
    default:
      return { [status.type]: hexOf(status.block) };
  }
};

async function watch({ client, hashing }: AuthorContext, wire: Uint8Array, stream: Subscription) {
  const extrinsic = extrinsicOf(wire);
  const nameOf = (poolHash: Hash): Hash => {
    const found = client.pool.get(poolHash);
    return found === undefined ? poolHash : transactionHash(hashing, found.extrinsic);
  };
  try {
    return await client.pool.submitAndWatch(extrinsic, (status) => {
      stream.notify(statusJson(status, nameOf));
      if (FINAL.has(status.type)) stream.close();
    });
  } catch (problem) {
    throw poolRefusal(problem, transactionHash(hashing, extrinsic));
  }
}

const methods = [
  method('author_submitExtrinsic', [hex('extrinsic')], async ({ client, hashing }, [wire]) => {
    const extrinsic = extrinsicOf(wire);
    const name = transactionHash(hashing, extrinsic);
    try {
      await client.pool.submit(extrinsic, 'local');
    } catch (problem) {
      throw poolRefusal(problem, name);
    }
    return name;
  }),
  subscription(
    'author_submitAndWatchExtrinsic',
    { unsubscribe: 'author_unwatchExtrinsic', notification: 'author_extrinsicUpdate' },
    [hex('extrinsic')],
    (context, [wire], stream) => watch(context, wire, stream),
  ),
  method('author_pendingExtrinsics', [], async ({ client }, _args, session) => {
    // Two digits a byte; those that are not ready count as well, so this may be said too early.
    if (2 * client.pool.status().bytes > session.maxResponse) throw responseTooBig(session.maxResponse);
    const ready = client.pool.ready();
    const out: string[] = [];
    for (let at = 0; at < ready.length; at += PART) {
      await session.turn(() => {
        for (const extrinsic of ready.slice(at, at + PART)) out.push(hexOf(withLength(extrinsic)));
      });
    }
    return out;
  }),
  method(
    'author_removeExtrinsic',
    [
      list(
        either(object('hash', { hash: hash('hash') }), object('hash', { extrinsic: hex('extrinsic') })),
        MAX_REMOVED,
      ),
    ],
    ({ client, hashing }, [wanted]) => {
      const names = new Set(
        wanted.map((each) => hexOf('hash' in each ? each.hash : hashing.blake2_256(each.extrinsic))),
      );
      const removed: string[] = [];
      for (const extrinsic of client.pool.ready()) {
        const name = hexOf(transactionHash(hashing, extrinsic));
        if (!names.has(name)) continue;
        const poolHash = hashing.blake2_256(extrinsic) as Hash;
        if (client.pool.remove([poolHash]).length > 0) removed.push(name);
      }
      return removed;
    },
    { unsafe: true },
  ),
  method(
    'author_insertKey',
    [keyType, text('suri'), hex('publicKey')],
    ({ keystore }, [type, suri, publicKey]) => {
      try {
        keystore.insert(type, suri, publicKey);
      } catch {
        // What went wrong may quote the secret.
        throw keyError('the secret does not belong to that public key and key type');
      }
      return null;
    },
    { unsafe: true },
  ),
  method(
    'author_rotateKeys',
    [],
    ({ keystore, sessionKeyTypes }) => joinBytes(sessionKeyTypes.map((type) => keystore.generate(type))),
    { unsafe: true },
  ),
  method(
    'author_rotateKeysWithOwner',
    [hash('owner')],
    ({ keystore, sessionKeyTypes }, [owner]) => {
      const statement = ownershipStatement(asAccountId(owner));
      const made = sessionKeyTypes.map((type) => {
        const key = keystore.generate(type);
        const signature = keystore.sign(type, key, statement);
        if (signature === undefined) throw keyError(`the new key of the type "${type}" does not sign`);
        return { key, signature };
      });
      return {
        keys: hexOf(joinBytes(made.map(({ key }) => key))),
        proof: hexOf(joinBytes(made.map(({ signature }) => signature))),
      };
    },
    { unsafe: true },
  ),
  method(
    'author_hasKey',
    [hex('publicKey'), keyType],
    ({ keystore }, [publicKey, type]) => keystore.has(type, publicKey),
    {
      unsafe: true,
    },
  ),
  method(
    'author_hasSessionKeys',
    [hex('sessionKeys')],
    async ({ view, keystore }, [sessionKeys], session) => {
      const parameters = encode(bytes(), sessionKeys);
      const output = await view.call(session, view.best(), 'SessionKeys_decode_session_keys', parameters);
      let keys: [Uint8Array, Uint8Array][] | undefined;
      try {
        keys = decode(decodedKeys, output);
      } catch (problem) {
        if (!(problem instanceof ScaleError)) throw problem;
      }
      if (keys === undefined) throw new RpcError(1003, 'Session keys are not encoded correctly');
      return keys.every(([publicKey, type]) => keystore.has(fromUtf8(type), publicKey));
    },
    { unsafe: true },
  ),
];

export const authorGroup = (context: AuthorContext): Group => group(context, methods);
