import { Readable, type Writable } from "node:stream";
import type { Message } from "@bufbuild/protobuf";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { headersFromMetadata } from "./grpc-metadata.ts";

export interface StreamEnds {
  /** Called once when the call has ended, however that came. */
  ended(): void;
  /** The error that the reader gets for what grpc-js reports. */
  failure(thrown: unknown): Error;
}

/**
 * Sends the requests as fast as the server takes them, and gives its answers as fast as they are read. Leaving the loop over
 * these ends the call, and no more requests are asked for.
 */
export function openStream(
  call: ClientDuplexStream<Message, Message>,
  requests: AsyncIterable<Message>,
  ends: StreamEnds,
) {
  const header = new Headers();
  const trailer = new Headers();
  const source = Readable.from(requests);
  let refused: Error | undefined;
  source.on("error", (error) => {
    refused = error;
    call.cancel();
  });
  // The error of a call that is cancelled after its loop was left has no other listener.
  call.on("error", () => {});
  call.on("metadata", (metadata) => headersFromMetadata(metadata, header));
  call.on("status", ({ metadata }) => {
    headersFromMetadata(metadata, trailer);
    source.destroy();
    ends.ended();
  });
  // It is a Duplex of objects; its types know only the methods of streams of bytes.
  source.pipe(call as unknown as Writable);

  async function* answers(): AsyncGenerator<Message> {
    try {
      yield* call;
    } catch (thrown) {
      throw refused ?? ends.failure(thrown);
    } finally {
      call.cancel();
    }
  }
  return { header, trailer, message: answers() };
}
