import { connectGrpc } from "./grpc-client.ts";
import { connectHttp } from "./http-client.ts";
import type { Target } from "./load.ts";

/** What became of a request. */
export type Outcome =
  | { readonly kind: "answered"; readonly body: Uint8Array }
  | { readonly kind: "refused" }
  | { readonly kind: "failed"; readonly reason: string };

/** Sends ready-made requests and looks no further into answers than to see what became of them, which keeps it cheap. */
export interface LoadClient {
  /** Sends the body of this number, counted round. Never rejects. */
  send(index: number): Promise<Outcome>;
  close(): Promise<void>;
}

/** Connects to a target, over HTTP/1.1 with as many connections as there may be requests under way. Rejects if nobody listens. */
export function connect(target: Target, connections: number): Promise<LoadClient> {
  return target.protocol === "grpc" ? connectGrpc(target) : connectHttp(target, connections);
}
