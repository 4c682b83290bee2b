/** What addresses say: the range that somebody can have many of, and whether they lead out of this machine and this house. */
import { BlockList } from 'node:net';
import type { Multiaddr } from '@multiformats/multiaddr';

/** /24 of IPv4, /48 of IPv6; an IPv4 address in IPv6's clothes is one of IPv4. */
export function rangeOf(address: Multiaddr): string {
  const [first] = address.getComponents();
  const value = first?.value ?? '';
  const [dotted] = value.match(/\d+\.\d+\.\d+\.\d+$/) ?? [];
  if (dotted !== undefined) return dotted.split('.').slice(0, 3).join('.');
  if (first?.name !== 'ip6') return value;
  const [head = '', tail] = value.toLowerCase().split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length;
  const groups = [...left, ...new Array<string>(Math.max(0, zeros)).fill('0'), ...right];
  const numbers = groups.map((each) => Number.parseInt(each, 16));
  // What a socket of both kinds calls an IPv4 address.
  if (numbers.slice(0, 5).every((each) => each === 0) && numbers[5] === 0xffff) {
    const [high = 0, low = 0] = numbers.slice(6);
    return [high >> 8, high & 0xff, low >> 8].join('.');
  }
  return numbers
    .slice(0, 3)
    .map((each) => each.toString(16))
    .join(':');
}

/** IANA's special-purpose registries: what lies within a machine, a house or a provider, and what is no single host. */
const SPECIAL_4 = new BlockList();
const SPECIAL_6 = new BlockList();
for (const [net, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const) {
  SPECIAL_4.addSubnet(net, prefix, 'ipv4');
}
// Global unicast is 2000::/3; within it: Teredo and ORCHID, documentation, and 6to4, which has an IPv4 address in it.
for (const [net, prefix] of [
  ['::', 3],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
  ['4000::', 2],
  ['8000::', 1],
] as const) {
  SPECIAL_6.addSubnet(net, prefix, 'ipv6');
}

/** A TCP address that is the same host for everybody. Names are none: whoever owns one lets it lead where they like. */
export function isPublic(address: Multiaddr): boolean {
  const [host, transport] = address.getComponents();
  if (host?.value === undefined || transport?.name !== 'tcp') return false;
  if (host.name === 'ip4') return !SPECIAL_4.check(host.value, 'ipv4');
  return host.name === 'ip6' && !SPECIAL_6.check(host.value, 'ipv6');
}
