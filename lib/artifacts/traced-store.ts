import type { Span } from "@opentelemetry/api";
import type { Artifact } from "../../gen/millrace/v1/artifact_pb.ts";
import { failSpan, startSpan, withSpan } from "../telemetry/spans.ts";
import type { ArtifactStore, GetOptions } from "./store.ts";

/**
 * Any driver with a span for each transfer: `artifact put` and `artifact get`, with the digest, the size and the driver.
 * A read's span ends with the iteration, also where the reader stops early, and bears the bytes that were read.
 */
export function tracedStore(store: ArtifactStore, driver: "file" | "nats"): ArtifactStore {
  const attributes = { "millrace.artifact.store": driver };
  return {
    put: (source, options) =>
      withSpan("artifact put", { attributes }, async (span) => {
        const artifact = await store.put(source, options);
        annotate(span, artifact);
        return artifact;
      }),
    async *get(digest: string, options: GetOptions = {}) {
      const span = startSpan("artifact get", { attributes });
      let sizeBytes = 0n;
      try {
        for await (const chunk of store.get(digest, options)) {
          sizeBytes += BigInt(chunk.byteLength);
          yield chunk;
        }
      } catch (error) {
        failSpan(span, error);
        throw error;
      } finally {
        annotate(span, { digest, sizeBytes });
        span.end();
      }
    },
    stat: (digest) => store.stat(digest),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

function annotate(span: Span, { digest, sizeBytes }: Pick<Artifact, "digest" | "sizeBytes">): void {
  span.setAttributes({ "millrace.artifact.digest": digest, "millrace.artifact.size_bytes": Number(sizeBytes) });
}
