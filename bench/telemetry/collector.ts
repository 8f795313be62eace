/** A collector that takes everything and keeps nothing, for what the sending costs. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface Collector extends Disposable {
  /** The variable that makes a process send its spans there, by http/protobuf. */
  readonly env: Readonly<Record<string, string>>;
}

/** Listens on a free port of loopback. */
export async function startCollector(): Promise<Collector> {
  const server = createServer((request, response) => request.resume().on("end", () => response.end()));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    env: { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `http://127.0.0.1:${port}/v1/traces` },
    [Symbol.dispose]: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
