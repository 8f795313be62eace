/** Which addresses a server may be sent to by a stranger: those of the public internet, and no others. */
import { BlockList, isIPv4, isIPv6 } from "node:net";

/**
 * IPv4 blocks that are not globally reachable (https://www.iana.org/assignments/iana-ipv4-special-registry), with the metadata services of clouds
 * among them (169.254.169.254), and multicast.
 */
const specialIPv4 = blockList("ipv4", [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  // Azure's, at an address that is otherwise like any other (https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
  ["168.63.129.16", 32],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 3],
]);

/** All of IPv6 that is given out for global use; addresses that stand for an IPv4 address lie outside, or are below. */
const globalIPv6 = blockList("ipv6", [["2000::", 3]]);

/** Parts of it that are not (https://www.iana.org/assignments/iana-ipv6-special-registry): Teredo and its like, documentation, 6to4. */
const specialIPv6 = blockList("ipv6", [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20],
]);

/** Whether an IP address is one of the public internet. What is no IP address is not. */
export function isPublicAddress(address: string): boolean {
  if (isIPv4(address)) return !specialIPv4.check(address, "ipv4");
  return isIPv6(address) && globalIPv6.check(address, "ipv6") && !specialIPv6.check(address, "ipv6");
}

function blockList(family: "ipv4" | "ipv6", blocks: readonly (readonly [string, number])[]): BlockList {
  const list = new BlockList();
  for (const [address, prefix] of blocks) list.addSubnet(address, prefix, family);
  return list;
}
