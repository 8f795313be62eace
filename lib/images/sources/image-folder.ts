import { basename, resolve } from "node:path";
import { AppError } from "../../errors.ts";
import { decodeConcurrency, decodeImage, maxImageBytes } from "../decode-image.ts";
import type { FileTree } from "../files/file-tree.ts";
import { mapInOrder } from "../ordered-map.ts";
import { type PlannedImage, planLayout } from "./folder-layout.ts";
import type { ImageSource, PixelShape, SourceItem, SourceOptions } from "./source.ts";

/** Images of a person's own: a folder or archive with one folder per class. The source owns the tree from here on. */
export function openImageFolder(path: string, tree: FileTree, options: SourceOptions): ImageSource {
  const plan = planLayout(tree.files, { ...options, source: path });
  const leftOut = [...tree.leftOut, ...plan.leftOut];
  return {
    name: "image folder",
    title: basename(resolve(path)).replace(/\.(tar|tar\.gz|tgz|zip)$/, ""),
    description: "Images of a folder or archive, one folder per class.",
    classes: plan.classes,
    phase: "decoding",
    total: plan.images.length + leftOut.length,
    async *items(signal) {
      for (const { path, reason } of leftOut) yield { kind: "left-out", path, reason };
      yield* mapInOrder(plan.images, decodeConcurrency, async (image) => {
        signal.throwIfAborted();
        return decodePlanned(image, options.shape);
      });
    },
    [Symbol.asyncDispose]: () => tree[Symbol.asyncDispose](),
  };
}

async function decodePlanned({ file, split, label }: PlannedImage, shape: PixelShape): Promise<SourceItem> {
  try {
    if (file.sizeBytes > maxImageBytes) {
      const message = `the file has ${file.sizeBytes} bytes; the limit is ${maxImageBytes}`;
      throw new AppError("IMAGE_TOO_LARGE", message);
    }
    return { kind: "image", split, label, pixels: await decodeImage(await file.read(), shape) };
  } catch (error) {
    const reason = reasonToLeaveOut(error);
    if (reason === undefined) throw error;
    return { kind: "left-out", path: file.path, reason };
  }
}

/** Why the file at fault is left out, or undefined if the trouble is not this file's alone. */
function reasonToLeaveOut(error: unknown): string | undefined {
  if (error instanceof AppError) {
    return error.code === "IMAGE_UNREADABLE" || error.code === "IMAGE_TOO_LARGE" ? error.message : undefined;
  }
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "EACCES" || code === "EPERM") return "it may not be read: permission denied";
  return undefined;
}
