// A backend of its own that lets Millrace look at pictures: POST /labels with the bytes of an image answers with its label.
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { createMillraceClient, reasonOf, retryDelayMsOf } from "@millrace/client";
import { traceCalls } from "@millrace/client/tracing";
import { context, propagation, ROOT_CONTEXT, SpanKind, trace } from "@opentelemetry/api";
import { NodeSDK } from "@opentelemetry/sdk-node";

/** What the caller gets: a status, and a body in JSON. */
interface Reply {
  readonly status: number;
  readonly body: object;
  readonly headers?: Record<string, string>;
}

const maxImageBytes = 4 * 1024 * 1024;
/** A person waits for the answer: after this time it is of no use, and Millrace is told so. */
const deadlineMs = 2_000;

const { MILLRACE_URL = "http://127.0.0.1:7404", PORT = "8000" } = process.env;

// Configured by the standard variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.
const telemetry = new NodeSDK({ serviceName: "label-service" });
telemetry.start();

const millrace = createMillraceClient({ baseUrl: MILLRACE_URL.split(","), deadlineMs, tracing: traceCalls });

const server = createServer(async (request, response) => {
  const { status, body, headers } = await answer(request);
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(`${JSON.stringify(body)}\n`);
});

server.listen(Number(PORT), "127.0.0.1");
await once(server, "listening");
console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}/labels`);

await once(process, "SIGTERM");
server.close();
await once(server, "close");
millrace.close();
await telemetry.shutdown();

/** Goes on with the caller's trace, if there is one. */
async function answer(request: IncomingMessage): Promise<Reply> {
  if (request.method !== "POST" || request.url !== "/labels") return { status: 404, body: { error: "POST /labels" } };
  const caller = propagation.extract(ROOT_CONTEXT, request.headers);
  const span = trace.getTracer("label-service").startSpan("POST /labels", { kind: SpanKind.SERVER }, caller);
  try {
    return await context.with(trace.setSpan(caller, span), () => label(request));
  } finally {
    span.end();
  }
}

async function label(request: IncomingMessage): Promise<Reply> {
  try {
    const image = await readImage(request);
    if (image === undefined) return { status: 413, body: { error: `an image has at most ${maxImageBytes} bytes` } };
    const answer = await millrace.predictions.predict({ input: { case: "image", value: image }, topK: 1 });
    const [best] = answer.predictions;
    return { status: 200, body: { label: best?.label, probability: best?.probability, model: answer.model?.version } };
  } catch (error) {
    return failure(error);
  }
}

/** The reason is for programs and stays the same from version to version. */
function failure(error: unknown): Reply {
  const reason = reasonOf(error) ?? "MILLRACE_UNREACHABLE";
  if (reason.startsWith("IMAGE_") || reason === "INVALID_REQUEST") return { status: 400, body: { error: reason } };
  const seconds = Math.ceil((retryDelayMsOf(error) ?? 1_000) / 1_000);
  return { status: 503, body: { error: reason }, headers: { "retry-after": String(seconds) } };
}

/** The body, or undefined if it is too large. It is read to its end all the same, so that the connection can be used again. */
async function readImage(request: IncomingMessage): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes <= maxImageBytes) chunks.push(chunk);
  }
  return sizeBytes <= maxImageBytes ? Buffer.concat(chunks) : undefined;
}
