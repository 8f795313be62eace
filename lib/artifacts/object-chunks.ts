import type { JetStreamManager } from "@nats-io/jetstream";
import type { ObjectInfo } from "@nats-io/obj";
import { corruptArtifact } from "./digest.ts";
import { translated } from "./object-store-errors.ts";

/**
 * Reads the chunks of one object, each by a request of its own, one ahead of the reader.
 *
 * The library's `get()` pushes a whole object at once, however slow its reader, and never ends when all chunks are
 * missing or the object is deleted meanwhile. A request for each chunk has an answer or a time limit, goes at the
 * reader's pace, and leaves no consumer on the server when the reader stops early.
 */
export async function* objectChunks(
  jsm: JetStreamManager,
  stream: string,
  info: ObjectInfo,
): AsyncGenerator<Uint8Array> {
  const subject = `$O.${info.bucket}.C.${info.nuid}`;
  const request = (fromSeq: number) => {
    const chunk = translated(`artifact ${info.name}`, () => chunkFrom(jsm, stream, subject, fromSeq));
    chunk.catch(() => {}); // a reader that stops early does not wait for the chunk ahead
    return chunk;
  };
  let next = request(1);
  for (let count = 0; count < info.chunks; count++) {
    const chunk = await next;
    if (chunk === undefined) {
      throw corruptArtifact(info.name, `bucket ${info.bucket}`, `${count} of its ${info.chunks} chunks are there`);
    }
    if (count + 1 < info.chunks) next = request(chunk.seq + 1);
    yield chunk.data;
  }
}

/** The first chunk at or behind a sequence number. */
async function chunkFrom(jsm: JetStreamManager, stream: string, subject: string, seq: number) {
  const query = { seq, next_by_subj: subject };
  // Any replica answers a direct get, and one that lags may not have the chunk yet: only the leader's no is a no.
  const message = (await jsm.direct.getMessage(stream, query)) ?? (await jsm.streams.getMessage(stream, query));
  return message === null ? undefined : { seq: message.seq, data: message.data };
}
