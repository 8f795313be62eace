/**
 * Checkpoints: everything a training needs to go on, in the middle of an epoch too, as if it had never stopped. The file is the word "MRCK",
 * a version, the length of a JSON header, the header, and the tensors as little-endian float32 in the header's order.
 */
import { z } from "zod";
import { AppError } from "../errors.ts";
import { parseTrainingConfig, type TrainingConfig } from "./configuration.ts";
import type { NetworkTrainer } from "./engine.ts";
import type { EpochSums } from "./epochs.ts";
import type { EpochReport } from "./training.ts";

export interface Checkpoint {
  readonly network: string;
  /** The resolved configuration. */
  readonly config: TrainingConfig;
  /** Classes and image shape of the data. */
  readonly data: DataSignature;
  /** The epochs done. */
  readonly epochs: readonly EpochReport[];
  /** Steps of the whole training done. What batches are made of follows from it and the seed. */
  readonly step: number;
  /** Time spent training, breaks left out. */
  readonly elapsedMs: number;
  /** Of the epoch under way. */
  readonly sums: EpochSums;
  readonly tensors: CheckpointTensors;
}

/** A checkpoint's tensors by name, in groups. */
export interface CheckpointTensors {
  /** Weights, running statistics and the optimiser's tensors. */
  readonly state: ReadonlyMap<string, Float32Array>;
  /** What averages the weights, empty while nothing does. */
  readonly average: ReadonlyMap<string, Float32Array>;
  /** The weights of the best epoch so far, empty where the last one's are kept. */
  readonly best: ReadonlyMap<string, Float32Array>;
}

/** What must be the same for a checkpoint to fit. */
export interface DataSignature {
  readonly classes: readonly string[];
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly images: number;
}

const magic = "MRCK";
const version = 3;
const prefixLength = 12;

const count = z.number().int().nonnegative();
const reportSchema = z.object({
  epoch: count,
  epochs: count,
  loss: z.number(),
  accuracy: z.number(),
  learningRate: z.number(),
  imagesPerSecond: z.number(),
  durationMs: z.number(),
  remainingMs: z.number(),
  validationAccuracy: z.number().exactOptional(),
  validationLoss: z.number().exactOptional(),
  validationMs: z.number().exactOptional(),
});
const headerSchema = z.object({
  network: z.string(),
  config: z.unknown(),
  data: z.object({ classes: z.array(z.string()), channels: count, height: count, width: count, images: count }),
  epochs: z.array(reportSchema),
  step: count,
  elapsedMs: z.number(),
  sums: z.object({ steps: count, loss: z.number(), correct: z.number(), durationMs: z.number() }),
  tensors: z.array(z.object({ group: z.enum(["state", "average", "best"]), name: z.string(), length: count })),
});

/** The checkpoint as a file, in memory of its own that can be handed to another thread. */
export function encodeCheckpoint({ tensors, ...rest }: Checkpoint): Uint8Array<ArrayBuffer> {
  const entries = Object.entries(tensors).flatMap(([group, values]) =>
    Array.from(values as ReadonlyMap<string, Float32Array>, ([name, data]) => ({ group, name, data })),
  );
  const described = entries.map(({ group, name, data }) => ({ group, name, length: data.length }));
  const header = Buffer.from(JSON.stringify({ ...rest, tensors: described }));
  const start = prefixLength + header.length;
  const file = new Uint8Array(entries.reduce((length, { data }) => length + data.byteLength, start));
  const prefix = Buffer.from(file.buffer, 0, prefixLength);
  prefix.write(magic, "latin1");
  prefix.writeUInt32LE(version, 4);
  prefix.writeUInt32LE(header.length, 8);
  file.set(header, prefixLength);
  let offset = start;
  for (const { data } of entries) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
    offset += data.byteLength;
  }
  return file;
}

/** Reads what `encodeCheckpoint` wrote. Throws ARTIFACT_CORRUPT for anything else, a truncated file included. */
export function decodeCheckpoint(bytes: Uint8Array): Checkpoint {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < prefixLength || file.toString("latin1", 0, 4) !== magic) throw corrupt("it does not start as one");
  if (file.readUInt32LE(4) !== version) throw corrupt(`its version is ${file.readUInt32LE(4)}, ${version} is expected`);
  const start = prefixLength + file.readUInt32LE(8);
  const { tensors: described, config, ...rest } = readHeader(file.subarray(prefixLength, start));
  const expected = start + 4 * described.reduce((sum, { length }) => sum + length, 0);
  if (file.length !== expected) throw corrupt(`it has ${file.length} bytes, its header says ${expected}`);
  const empty = () => new Map<string, Float32Array>();
  const tensors = { state: empty(), average: empty(), best: empty() };
  let offset = start;
  for (const { group, name, length } of described) {
    // A copy, because tensors in the file need not be aligned.
    tensors[group].set(name, new Float32Array(new Uint8Array(file.subarray(offset, offset + 4 * length)).buffer));
    offset += 4 * length;
  }
  return { ...rest, config: readConfig(config), tensors };
}

/** Throws CONFIGURATION_INVALID unless a training of this kind may go on from the checkpoint. */
export function checkResumable(checkpoint: Checkpoint, request: Pick<Checkpoint, "network" | "config" | "data">): void {
  for (const key of ["network", "config", "data"] as const) {
    const [kept, asked] = [JSON.stringify(checkpoint[key]), JSON.stringify(request[key])];
    if (kept === asked) continue;
    const message = `the checkpoint is of another training: its ${key} is ${kept}, this one's ${asked}; start without it`;
    throw new AppError("CONFIGURATION_INVALID", message, { details: { key } });
  }
}

/**
 * Throws ARTIFACT_CORRUPT unless the tensors are those of this trainer's network, which another version may build otherwise. Engines
 * read them by name: too many would be ignored, and too few in an average would stay as they are.
 */
export function checkTensors(checkpoint: Checkpoint, trainer: Pick<NetworkTrainer, "state" | "weights">): void {
  const { tensors, config, epochs } = checkpoint;
  const weights = trainer.weights();
  const groups = [
    { group: "state", expected: trainer.state(), mayLack: false },
    { group: "average", expected: weights, mayLack: config.weightAveraging.kind !== "ema" },
    { group: "best", expected: weights, mayLack: config.keep !== "best" || epochs.length === 0 },
  ] as const;
  for (const { group, expected, mayLack } of groups) {
    const found = tensors[group];
    if (mayLack && found.size === 0) continue;
    for (const [name, { length }] of expected) {
      if (found.get(name)?.length !== length) throw corrupt(`${group} has no tensor ${name} of ${length} elements`);
    }
    for (const name of found.keys()) {
      if (!expected.has(name)) throw corrupt(`${group} has a tensor ${name}, which the network does not`);
    }
  }
}

function readHeader(bytes: Buffer): z.output<typeof headerSchema> {
  try {
    return headerSchema.parse(JSON.parse(bytes.toString()));
  } catch (thrown) {
    throw corrupt("its header cannot be read", thrown);
  }
}

/** Checkpoints outlive the version that wrote them, and a later one may know other options. */
function readConfig(config: unknown): TrainingConfig {
  try {
    return parseTrainingConfig(config);
  } catch (thrown) {
    throw corrupt("its configuration is of another version", thrown);
  }
}

function corrupt(reason: string, cause?: unknown): AppError {
  return new AppError("ARTIFACT_CORRUPT", `this is no usable checkpoint: ${reason}; train without it`, { cause });
}
