import { create } from "@bufbuild/protobuf";
import { DatasetShardSchema, type DatasetSplit, DatasetSplitSchema } from "../../gen/millrace/v1/dataset_pb.ts";
import type { ArtifactStore } from "../artifacts/store.ts";
import { withSpan } from "../telemetry/spans.ts";
import type { SplitName } from "./sources/source.ts";

/** A shard holds this many images, or fewer where they would need more than `shardBytes`. */
const shardImages = 2000;
const shardBytes = 16 * 1024 * 1024;

export interface ShardWriterOptions {
  readonly artifacts: ArtifactStore;
  /** Prefix of the artifacts' names. */
  readonly name: SplitName;
  /** Bytes of an image. */
  readonly imageBytes: number;
  /** Number of classes. */
  readonly classes: number;
  readonly signal: AbortSignal;
}

/** Packs one split's images into shards. */
export interface ShardWriter {
  /** Copies an image into the open shard and stores the shard if that fills it. */
  add(label: number, pixels: Uint8Array): Promise<void>;
  /** Stores the last, shorter shard and describes the split. */
  finish(): Promise<DatasetSplit>;
}

/**
 * A writer that holds one shard in memory: pixels as unsigned bytes and beside them labels as unsigned 16-bit
 * little-endian integers, two artifacts a shard. Images keep the order in which they are added. A span for each shard begins
 * with its first image, so that it shows how long reading and decoding took, and a span inside it is the storing alone.
 */
export function createShardWriter(options: ShardWriterOptions): ShardWriter {
  const { artifacts, name, imageBytes, classes, signal } = options;
  const capacity = Math.max(1, Math.min(shardImages, Math.floor(shardBytes / imageBytes)));
  const pixels = new Uint8Array(capacity * imageBytes);
  const labels = new DataView(new ArrayBuffer(capacity * 2));
  const split = create(DatasetSplitSchema, { classCounts: new Array<number>(classes).fill(0) });
  let held = 0;
  let beganMs = 0;

  const put = (bytes: Uint8Array, part: string): ReturnType<ArtifactStore["put"]> => {
    const file = `${name}-${String(split.shards.length).padStart(5, "0")}.${part}`;
    return artifacts.put(bytes, { mediaType: "application/octet-stream", name: file, signal });
  };
  const store = (): Promise<void> => {
    const attributes = {
      "millrace.dataset.split": name,
      "millrace.shard.index": split.shards.length,
      "millrace.images.count": held,
    };
    return withSpan("fill shard", { attributes, startTimeMs: beganMs }, () => withSpan("write shard", {}, write));
  };
  const write = async (): Promise<void> => {
    const shard = create(DatasetShardSchema, {
      pixels: await put(pixels.subarray(0, held * imageBytes), "pixels"),
      labels: await put(new Uint8Array(labels.buffer, 0, held * 2), "labels"),
      imageCount: held,
    });
    split.shards.push(shard);
    held = 0;
  };
  return {
    async add(label, image) {
      if (held === 0) beganMs = Date.now();
      pixels.set(image, held * imageBytes);
      labels.setUint16(held * 2, label, true);
      held++;
      split.imageCount++;
      split.classCounts[label] = (split.classCounts[label] ?? 0) + 1;
      if (held === capacity) await store();
    },
    async finish() {
      if (held > 0) await store();
      return split;
    },
  };
}
