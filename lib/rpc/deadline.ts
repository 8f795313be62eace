/** Deadlines as callers send them, in the header of their protocol. */
import type { IncomingHttpHeaders } from "node:http2";
import { parseTimeout as parseConnectTimeout } from "@connectrpc/connect/protocol-connect";
import { parseTimeout as parseGrpcTimeout } from "@connectrpc/connect/protocol-grpc";

/** The longest that Node's timers take, some 25 days: a longer one would ring at once. */
export const longestTimerMs = 2 ** 31 - 1;

/** For the parsers, which would refuse what is longer. */
const noLimit = Number.POSITIVE_INFINITY;

export interface DeadlineLimits {
  /** Of a call whose client sets none. Undefined: it has none. */
  readonly defaultMs: number | undefined;
  /** What a longer one is cut to. */
  readonly maxMs: number;
}

/** Writes the deadline that holds for a call into its headers. What is no deadline is left, to be refused. */
export function limitDeadline(headers: IncomingHttpHeaders, { defaultMs, maxMs }: DeadlineLimits): void {
  const isGrpc = headers["content-type"]?.startsWith("application/grpc") ?? false;
  const name = isGrpc ? "grpc-timeout" : "connect-timeout-ms";
  const sent = headers[name]?.toString() ?? null;
  const { timeoutMs = defaultMs, error } = (isGrpc ? parseGrpcTimeout : parseConnectTimeout)(sent, noLimit);
  if (timeoutMs === undefined || error !== undefined) return;
  const limitedMs = Math.min(timeoutMs, maxMs);
  if (sent === null || limitedMs < timeoutMs) headers[name] = isGrpc ? grpcTimeout(limitedMs) : String(limitedMs);
}

/** At most eight digits (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). */
function grpcTimeout(timeoutMs: number): string {
  return timeoutMs < 1e8 ? `${timeoutMs}m` : `${Math.floor(timeoutMs / 1_000)}S`;
}
