import { AppError } from "../../errors.ts";
import type { FileTree, TreeFile } from "../files/file-tree.ts";
import { cifar10Classes } from "./cifar10-classes.ts";
import type { ImageSource, PixelShape, SourceItem, SourceOptions, SplitName } from "./source.ts";

/** Shape of CIFAR-10's images. */
const cifar10Shape: PixelShape = { height: 32, width: 32, channels: 3 };
const pixelBytes = 3 * 32 * 32;
/** One byte of label, then the pixels: already channel by channel, row by row. */
const recordBytes = 1 + pixelBytes;

/** A batch is read whole. The official ones have 30 MB. */
const maxBatchBytes = 128 * 1024 ** 2;

const batchName = /(^|\/)(data_batch_\d+|test_batch)\.bin$/;

/** Whether a folder or archive holds CIFAR-10 in its official binary form. */
export function isCifar10(tree: FileTree): boolean {
  return tree.files.some(({ path }) => batchName.test(path));
}

/**
 * CIFAR-10 from its binary batches: five to train on and one to test on, 10,000 images each. Its authors mixed the images;
 * they keep their order, and a limit takes each class's first. The source owns the tree from here on.
 *
 * @throws AppError DATASET_INVALID when batches are missing, a batch is no whole number of records, or another image size
 * is asked for; while iterating, when a label is no class's.
 */
export function openCifar10(path: string, tree: FileTree, options: SourceOptions): ImageSource {
  const { shape, limitPerClass } = options;
  if (shape.height !== cifar10Shape.height || shape.width !== cifar10Shape.width) {
    throw invalid(path, `its images have 32 x 32 pixels and are not resized; leave the image size at 32`);
  }
  const batches = tree.files.filter((file) => batchName.test(file.path)).sort(byPath);
  const splits = { train: batches.filter((file) => !isTest(file)), test: batches.filter(isTest) };
  if (splits.train.length === 0 || splits.test.length === 0) {
    throw invalid(path, "data_batch_1.bin to data_batch_5.bin and test_batch.bin are needed, and some are missing");
  }
  for (const { path: name, sizeBytes } of batches) {
    if (sizeBytes > maxBatchBytes) throw invalid(path, `${name} has ${sizeBytes} bytes; the limit is ${maxBatchBytes}`);
    if (sizeBytes % recordBytes !== 0) throw invalid(path, `${name} is no whole number of ${recordBytes}-byte records`);
  }
  const most = (files: readonly TreeFile[]): number => {
    const records = files.reduce((sum, { sizeBytes }) => sum + sizeBytes / recordBytes, 0);
    return Math.min(records, limitPerClass * cifar10Classes.length);
  };
  return {
    name: "cifar10",
    title: "cifar10",
    description:
      "CIFAR-10: Alex Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009; " +
      "https://www.cs.toronto.edu/~kriz/cifar.html.",
    classes: cifar10Classes,
    phase: "decoding",
    total: most(splits.train) + most(splits.test),
    async *items(signal) {
      yield* readSplit("train", splits.train, { path, limitPerClass, signal });
      yield* readSplit("test", splits.test, { path, limitPerClass, signal });
    },
    [Symbol.asyncDispose]: () => tree[Symbol.asyncDispose](),
  };
}

interface ReadOptions {
  readonly path: string;
  readonly limitPerClass: number;
  readonly signal: AbortSignal;
}

async function* readSplit(
  split: SplitName,
  batches: readonly TreeFile[],
  { path, limitPerClass, signal }: ReadOptions,
): AsyncGenerator<SourceItem> {
  const taken = cifar10Classes.map(() => 0);
  for (const batch of batches) {
    if (taken.every((count) => count >= limitPerClass)) return;
    signal.throwIfAborted();
    const bytes = await batch.read();
    for (let at = 0; at < bytes.length; at += recordBytes) {
      const label = bytes[at] ?? 0;
      const count = taken[label];
      if (count === undefined) throw invalid(path, `${batch.path} has an image with label ${label}; labels end at 9`);
      if (count >= limitPerClass) continue;
      taken[label] = count + 1;
      yield { kind: "image", split, label, pixels: bytes.subarray(at + 1, at + recordBytes) };
    }
  }
}

function isTest({ path }: TreeFile): boolean {
  return path.endsWith("test_batch.bin");
}

function byPath(one: TreeFile, other: TreeFile): number {
  return one.path < other.path ? -1 : 1;
}

function invalid(path: string, reason: string): AppError {
  return new AppError("DATASET_INVALID", `${path} is no usable CIFAR-10: ${reason}`);
}
