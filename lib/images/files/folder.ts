import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { mapInOrder } from "../ordered-map.ts";
import type { LeftOut } from "../sources/source.ts";
import { isHidden } from "./archive-limits.ts";
import type { FileTree, TreeFile } from "./file-tree.ts";

/** Files whose size is asked for at once. */
const statConcurrency = 32;

/** A folder as a tree of files. Symbolic links are not followed: they could lead out of it, or in a circle. */
export async function openFolder(root: string, signal: AbortSignal): Promise<FileTree> {
  const files: TreeFile[] = [];
  const leftOut: LeftOut[] = [];
  const folders = [""];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    signal.throwIfAborted();
    const entries = await readdir(join(root, folder), { withFileTypes: true });
    const paths: string[] = [];
    for (const entry of entries) {
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (isHidden(path)) continue;
      if (entry.isDirectory()) folders.push(path);
      else if (entry.isFile()) paths.push(path);
      else leftOut.push({ path, reason: "it is no file but a link or a device, which is not followed" });
    }
    for await (const file of mapInOrder(paths, statConcurrency, (path) => fileAt(root, path))) files.push(file);
  }
  return { files, leftOut, async [Symbol.asyncDispose]() {} };
}

async function fileAt(root: string, path: string): Promise<TreeFile> {
  const full = join(root, path);
  const { size } = await stat(full);
  return { path, sizeBytes: size, read: () => readFile(full) };
}
