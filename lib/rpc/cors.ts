import { cors } from "@connectrpc/connect";
import type { HttpRequest, HttpResponse } from "./port.ts";

/** How long a browser may remember the permission, in seconds. */
const maxAgeSeconds = 7_200;

/** Tells where JSON ends and binary tensors begin, in requests and answers of the Open Inference Protocol. */
const tensorHeader = "inference-header-content-length";
/** The context of a trace (W3C Trace Context and Baggage). */
const traceHeaders = ["traceparent", "tracestate", "baggage"];
const allowedHeaders = [...cors.allowedHeaders, tensorHeader, "authorization", ...traceHeaders].join(", ");
const exposedHeaders = [...cors.exposedHeaders, tensorHeader, "retry-after"].join(", ");

/**
 * Lets web pages of the given origins ("https://console.example.org"; "*" for all) call over Connect and gRPC-Web.
 * The function that it returns sets the headers of an answer and says whether it was a preflight, which is then answered.
 */
export function createCors(origins: readonly string[]): (request: HttpRequest, response: HttpResponse) => boolean {
  if (origins.length === 0) return () => false;
  return (request, response) => {
    response.appendHeader("vary", "origin");
    const origin = request.headers.origin;
    if (origin === undefined || !(origins.includes(origin) || origins.includes("*"))) return false;
    response.setHeader("access-control-allow-origin", origin);
    if (request.method !== "OPTIONS") {
      response.setHeader("access-control-expose-headers", exposedHeaders);
      return false;
    }
    response.writeHead(204, {
      "access-control-allow-methods": cors.allowedMethods.join(", "),
      "access-control-allow-headers": allowedHeaders,
      "access-control-max-age": String(maxAgeSeconds),
    });
    response.end();
    return true;
  };
}
