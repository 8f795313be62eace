import type { IncomingHttpHeaders } from "node:http2";
import type { HeaderList } from "./hpack.ts";

const pseudoNames: ReadonlySet<string> = new Set([":method", ":scheme", ":path", ":authority"]);
/** They are about a connection of HTTP/1.1, or ask for something: `content-length` to be checked, `expect` to be answered first. */
const unplainNames: ReadonlySet<string> = new Set([
  "connection",
  "content-length",
  "expect",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
]);
const tokenPattern = /^[a-z0-9!#$%&'*+.^_`|~-]+$/;
const badValuePattern = /[\0\r\n]|^[ \t]|[ \t]$/;

/**
 * The headers of a request by name, if there is nothing special about them; a name that comes several times has its values in a list. Undefined
 * for those that are malformed (RFC 9113, section 8.2), or that somebody has to know more about than is known here.
 */
export function plainHeaders(list: HeaderList): IncomingHttpHeaders | undefined {
  // Without a prototype, as a header may be called anything.
  const headers = Object.create(null) as Record<string, string>;
  let isPseudo = true;
  for (let at = 0; at < list.length; at += 2) {
    const [name = "", value = ""] = [list[at], list[at + 1]];
    if (badValuePattern.test(value)) return undefined;
    const known = headers[name];
    if (name.startsWith(":")) {
      if (!isPseudo || known !== undefined || !pseudoNames.has(name)) return undefined;
      headers[name] = value;
      continue;
    }
    isPseudo = false;
    if (!tokenPattern.test(name) || unplainNames.has(name) || (name === "te" && value !== "trailers")) return undefined;
    headers[name] = known === undefined ? value : `${known}${name === "cookie" ? "; " : ", "}${value}`;
  }
  const { ":method": method, ":scheme": scheme, ":path": path } = headers;
  return method && scheme && path ? headers : undefined;
}
