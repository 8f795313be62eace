/** Who may call: whoever knows a token. Once for the whole port, before anything looks at a request, so that no path can forget it. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http2";
import type { HttpResponse } from "./port.ts";

/** What orchestrators ask without a token. */
const openPaths: readonly string[] = ["/healthz", "/readyz"];
const openService = "/grpc.health.v1.Health/";

/** Whether a request for a path may go on. */
export type AccessCheck = (path: string, headers: IncomingHttpHeaders) => boolean;

/** Lets those in that send `authorization: Bearer TOKEN` with one of the tokens; everybody if there are none. Health is open to all. */
export function createAccessCheck(tokens: readonly string[]): AccessCheck {
  if (tokens.length === 0) return () => true;
  const known = tokens.map(digestOf);
  return (path, { authorization = "" }) => {
    if (openPaths.includes(path) || path.startsWith(openService)) return true;
    const [scheme = "", token = "", ...rest] = authorization.split(" ");
    if (scheme.toLowerCase() !== "bearer" || rest.length > 0) return false;
    const given = digestOf(token);
    // All are compared, each in the same time: neither a token nor which one it was can be found out by the clock.
    return known.map((each) => timingSafeEqual(each, given)).includes(true);
  };
}

function digestOf(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}

/** 401 in plain HTTP, which clients of gRPC, gRPC-Web and Connect all take for UNAUTHENTICATED. */
export function refuseAccess(response: HttpResponse): void {
  const message = "send a token that this service knows: authorization: Bearer TOKEN";
  response.writeHead(401, { "content-type": "application/json", "www-authenticate": "Bearer" });
  response.end(JSON.stringify({ code: "unauthenticated", message, error: message }));
}
