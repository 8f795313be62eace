import { defaultArchiveLimits } from "../files/archive-limits.ts";
import { type DownloadOptions, download, type RemoteFile } from "../files/download.ts";
import { openFileTree } from "../files/file-tree.ts";
import { isCifar10, openCifar10 } from "./cifar10.ts";
import { openImageFolder } from "./image-folder.ts";
import { openPictograms } from "./pictograms.ts";
import type { ImageSource, SourceOptions } from "./source.ts";

/** CIFAR-10's binary archive as its authors publish it. */
const cifar10Archive: RemoteFile = {
  url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
  fileName: "cifar-10-binary.tar.gz",
  sizeBytes: 170_052_171,
  md5: "c32a1d4ab5d03f1284b67883e8d87530",
};

export interface OpenSourceOptions extends SourceOptions {
  /** The archive that "cifar10" names. Default: the one that its authors publish. */
  readonly cifar10?: RemoteFile;
  onDownload: DownloadOptions["onProgress"];
}

/**
 * Opens the source that a specification names: "pictograms", "cifar10", or a path, which holds CIFAR-10's binary batches or
 * else images in class folders. A folder that bears a built-in source's name is reached by "./pictograms".
 *
 * @throws AppError DATASET_INVALID, ARCHIVE_REFUSED or DOWNLOAD_FAILED, as the parts describe.
 */
export async function openSource(source: string, options: OpenSourceOptions): Promise<ImageSource> {
  if (source === "" || source === "pictograms") return openPictograms(options);
  const path = source === "cifar10" ? await fetchCifar10(options) : source;
  const tree = await openFileTree(path, { ...options, limits: defaultArchiveLimits });
  try {
    return isCifar10(tree) ? openCifar10(path, tree, options) : openImageFolder(path, tree, options);
  } catch (error) {
    await tree[Symbol.asyncDispose]();
    throw error;
  }
}

function fetchCifar10({
  cifar10 = cifar10Archive,
  cacheFolder,
  signal,
  onDownload,
}: OpenSourceOptions): Promise<string> {
  return download(cifar10, { cacheFolder, signal, onProgress: onDownload });
}
