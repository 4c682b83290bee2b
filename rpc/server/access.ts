/** Who may come in: the pages of which origins, under which host names, and to which methods. */
import { BlockList, isIP } from 'node:net';

/** Origins of web pages that may use the server: all, or those that match a pattern with `*` in it. */
export type Cors = 'all' | readonly string[];
export type MethodPolicy = 'safe' | 'unsafe' | 'auto';

/** Pages on this machine, on any port. */
export const LOCAL_ORIGINS: Cors = [
  'http://localhost:*',
  'http://127.0.0.1:*',
  'http://[::1]:*',
  'https://localhost:*',
  'https://127.0.0.1:*',
  'https://[::1]:*',
];

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** Whether an address, or the name `localhost`, is this machine's own. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost') return true;
  const bare = host.replace(/^\[|\]$/g, '').replace(/^::ffff:(?=\d+\.)/i, '');
  const version = isIP(bare);
  return version !== 0 && loopback.check(bare, version === 4 ? 'ipv4' : 'ipv6');
}

const matcher = (pattern: string): RegExp =>
  new RegExp(`^${pattern.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '[^/]*')}$`, 'i');

export interface Access {
  /** `origin`: what the request says; none means that it does not come from a web page. */
  allowsOrigin(origin: string | undefined): boolean;
  /** `host`: what the request asks for. Names that others made point here are refused (DNS rebinding). */
  allowsHost(host: string | undefined): boolean;
  allowsUnsafe(remoteAddress: string | undefined): boolean;
}

export function access(options: {
  readonly host: string;
  readonly cors: Cors;
  readonly methods: MethodPolicy;
  /** Names that this server may be called by, besides addresses and `localhost`. */
  readonly hosts?: readonly string[];
}): Access {
  const { cors, methods } = options;
  const patterns = cors === 'all' ? undefined : cors.map(matcher);
  const local = isLoopback(options.host);
  const names = new Set(['localhost', ...(options.hosts ?? [])].map((each) => each.toLowerCase()));
  return {
    allowsOrigin: (origin) =>
      patterns === undefined || origin === undefined || patterns.some((pattern) => pattern.test(origin)),
    allowsHost(host) {
      if (patterns === undefined) return true;
      if (host === undefined) return false;
      const name = host.toLowerCase().replace(/:\d+$/, '');
      return names.has(name) || (local ? isLoopback(name) : isIP(name.replace(/^\[|\]$/g, '')) !== 0);
    },
    allowsUnsafe: (remoteAddress) =>
      methods === 'unsafe' || (methods === 'auto' && local && remoteAddress !== undefined && isLoopback(remoteAddress)),
  };
}
