/** Who may come in: the pages of which origins, under which host names, and to which methods. */
import type { IncomingHttpHeaders } from 'node:http';
import { BlockList, isIP } from 'node:net';

/** Origins of web pages that may use the server: all, or those that match a pattern with `*` in it. */
export type Cors = 'all' | readonly string[];
export type MethodPolicy = 'safe' | 'unsafe' | 'auto';

/** Pages on this machine, on any port. */
export const LOCAL_ORIGINS: readonly string[] = [
  'http://localhost',
  'http://127.0.0.1',
  'http://[::1]',
  'http://localhost:*',
  'http://127.0.0.1:*',
  'http://[::1]:*',
  'https://localhost:*',
  'https://127.0.0.1:*',
  'https://[::1]:*',
];

/** Wallets and consoles that run in a browser. A development chain lets them use its safe methods. */
export const WALLET_ORIGINS: readonly string[] = [
  'https://polkadot.js.org',
  'https://dev.papi.how',
  'https://console.polkadot.cloud',
  'chrome-extension://*',
  'moz-extension://*',
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

/** What proxies add to the requests that they hand on. A browser cannot leave them out, nor can a page set them. */
const FORWARDED = ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip', 'cf-connecting-ip', 'via'] as const;

/** Whether a request came through a proxy: then it is not from this machine, whatever its address says. */
export const isForwarded = (headers: IncomingHttpHeaders): boolean =>
  FORWARDED.some((name) => headers[name] !== undefined);

/**
 * Who shares one budget: the connections of one foreign address, by /64 for IPv6, and of one client of a proxy on this machine.
 * Undefined for a caller on this machine, whose connections count one by one.
 */
export function addressOf(remote: string | undefined, headers?: IncomingHttpHeaders): string | undefined {
  if (remote === undefined) return 'unknown';
  if (!isLoopback(remote)) return networkOf(remote);
  if (headers === undefined || !isForwarded(headers)) return undefined;
  // The last entry is the proxy's own; those before it may be invented.
  const told = [headers['x-forwarded-for'] ?? headers['x-real-ip'] ?? ''].flat().join(',').split(',').at(-1)!.trim();
  return `forwarded ${isIP(told) === 0 ? 'by a proxy' : networkOf(told)}`;
}

const networkOf = (address: string): string => {
  const bare = address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '');
  if (isIP(bare) !== 6) return bare;
  const [head = '', tail] = bare.split('::', 2);
  const groups = head === '' ? [] : head.split(':');
  const after = tail === undefined || tail === '' ? [] : tail.split(':');
  while (groups.length + after.length < 8) groups.push('0');
  return [...groups, ...after]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':');
};

export interface Access {
  /** `origin`: what the request says; none means that it does not come from a web page. */
  allowsOrigin(origin: string | undefined): boolean;
  /** `host`: what the request asks for. Names that others made point here are refused (DNS rebinding). */
  allowsHost(host: string | undefined): boolean;
  /** Whether a request may call unsafe methods, by where it comes from. */
  allowsUnsafe(remoteAddress: string | undefined, headers: IncomingHttpHeaders): boolean;
}

export interface AccessOptions {
  readonly host: string;
  readonly cors: Cors;
  readonly methods: MethodPolicy;
  /** Names that this server may be called by, besides addresses and `localhost`. */
  readonly hosts?: readonly string[];
  /** Further origins, whose pages may call safe methods alone. */
  readonly guests?: readonly string[];
  /** With `methods: 'unsafe'`: also for requests from elsewhere. */
  readonly unsafeExternal?: boolean;
}

export function access(options: AccessOptions): Access {
  const { cors, methods, unsafeExternal = false } = options;
  const trusted = (cors === 'all' ? LOCAL_ORIGINS : cors).map(matcher);
  const guests = (options.guests ?? []).map(matcher);
  const local = isLoopback(options.host);
  const names = new Set(['localhost', ...(options.hosts ?? [])].map((each) => each.toLowerCase()));
  const isTrusted = (origin: string): boolean => trusted.some((pattern) => pattern.test(origin));
  const isKnownHost = (host: string | undefined): boolean => {
    if (host === undefined) return false;
    const name = host.toLowerCase().replace(/:\d+$/, '');
    return names.has(name) || (local ? isLoopback(name) : isIP(name.replace(/^\[|\]$/g, '')) !== 0);
  };
  return {
    allowsOrigin: (origin) =>
      cors === 'all' || origin === undefined || isTrusted(origin) || guests.some((pattern) => pattern.test(origin)),
    allowsHost: (host) => cors === 'all' || isKnownHost(host),
    allowsUnsafe(remoteAddress, headers) {
      const { origin, host } = headers;
      if (methods === 'safe') return false;
      // A page that everybody may open is not the operator, whatever else it may do here.
      if (origin !== undefined && !isTrusted(origin)) return false;
      if (!isKnownHost(host)) return false;
      if (methods === 'unsafe' && unsafeExternal) return true;
      if (isForwarded(headers)) return false;
      return methods === 'unsafe' || (local && remoteAddress !== undefined && isLoopback(remoteAddress));
    },
  };
}
