import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { createCors } from "../../../lib/rpc/cors.ts";
import { startServer } from "./server-fixture.ts";

const path = "/millrace.v1.PredictionService/GetModel";
const page = "https://console.example.org";

function preflight(url: string, origin: string): Promise<Response> {
  return fetch(url + path, {
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type" },
  });
}

test("a page of a configured origin may call, and read the headers that gRPC-Web needs", async (t) => {
  const { url } = await startServer(t, { corsOrigins: [page] });
  const { status, headers } = await preflight(url, page);
  assert.equal(status, 204);
  assert.equal(headers.get("access-control-allow-origin"), page);
  const allowed = headers.get("access-control-allow-headers")?.toLowerCase().split(", ") ?? [];
  for (const name of ["content-type", "x-grpc-web", "authorization", "traceparent", "tracestate", "baggage"]) {
    assert.ok(allowed.includes(name), name);
  }

  const answer = await fetch(url + path, {
    method: "POST",
    headers: { origin: page, "content-type": "application/json" },
    body: "{}",
  });
  assert.deepEqual(await answer.json(), { classes: ["cat", "dog"] });
  assert.equal(answer.headers.get("access-control-allow-origin"), page);
  assert.match(answer.headers.get("access-control-expose-headers") ?? "", /Grpc-Status/i);
});

test("a page of any other origin may not, and by default none may", async (t) => {
  for (const corsOrigins of [[page], []]) {
    const { url } = await startServer(t, { corsOrigins });
    const { headers } = await preflight(url, "https://elsewhere.example.org");
    assert.equal(headers.get("access-control-allow-origin"), null);
  }
});

test("gRPC-Web in text gets 415", async (t) => {
  const { url } = await startServer(t);
  const text = { method: "POST", headers: { "content-type": "application/grpc-web-text" }, body: "AAAAAAA=" };
  assert.equal((await fetch(url + path, text)).status, 415);
});

test("paths that are no method go to the fallback", async (t) => {
  const { url } = await startServer(t, { fallback: (_request, response) => response.end("the console") });
  assert.equal(await (await fetch(`${url}/index.html`)).text(), "the console");
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
});

test("what else an answer varies by stays", async (t) => {
  const answerPreflight = createCors([page]);
  const server = createServer((request, response) => {
    response.setHeader("vary", "accept-encoding");
    if (!answerPreflight(request, response)) response.end();
  });
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { headers } = await preflight(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, page);
  assert.equal(headers.get("vary"), "accept-encoding, origin");
});
