/**
 * What Node's HTTP/2 alone makes of the same calls: each is read and answered with the same bytes, and nothing else is done. A process of its own, as
 * the service is started; `startBareHttp2` starts it.
 */
import { createServer } from "node:http2";
import { fileURLToPath } from "node:url";
import { typeScriptOptions } from "../../lib/type-script.ts";
import type { SampleImage } from "./images.ts";
import { heapOptions } from "./millrace.ts";
import { freePort, launch, type RunningServer, untilAnswered } from "./servers.ts";
import { targetOf, type Wire } from "./wires.ts";

const file = fileURLToPath(import.meta.url);
/** Bytes of an answer: as many as Predict's with ten classes, about. */
const answerBytes = 250;
const prefixBytes = 5;

/** Answers unary gRPC calls of any kind. */
export async function startBareHttp2(wire: Wire, images: readonly SampleImage[]): Promise<RunningServer> {
  const port = await freePort();
  const args = [...typeScriptOptions, ...heapOptions, file, String(port)];
  const launched = launch({ command: process.execPath, args, env: process.env });
  const address = `127.0.0.1:${port}`;
  const startUpMs = await untilAnswered(launched, targetOf(wire, address, images));
  const { pid = 0 } = launched.child;
  return { address, pid, startUpMs, [Symbol.asyncDispose]: () => launched[Symbol.asyncDispose]() };
}

function serve(port: number): void {
  const answer = Buffer.alloc(prefixBytes + answerBytes);
  answer.writeUInt32BE(answerBytes, 1);
  const server = createServer();
  server.on("stream", (stream) => {
    stream.on("error", () => {});
    stream.on("end", () => {
      stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(answer);
    });
    stream.resume();
  });
  server.on("connection", (socket) => socket.setNoDelay(true));
  server.listen(port, "127.0.0.1");
}

if (process.argv[1] === file) serve(Number(process.argv[2]));
