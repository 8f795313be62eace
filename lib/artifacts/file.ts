import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { digestFromHash } from "./digest.ts";
import { chunkSizeBytes } from "./transfer.ts";

export interface WrittenFile {
  readonly digest: string;
  readonly sizeBytes: number;
}

/** Writes a stream to a new file, hashing as it goes. With `durable`, returns only when the content is on the disk itself. */
export async function writeHashed(
  source: AsyncIterable<Uint8Array>,
  path: string,
  options: { readonly durable: boolean },
): Promise<WrittenFile> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  const file = await open(path, "wx");
  try {
    for await (const chunk of source) {
      hash.update(chunk);
      sizeBytes += chunk.byteLength;
      await writeWhole(file, chunk);
    }
    if (options.durable) await file.sync();
  } finally {
    await file.close();
  }
  return { digest: digestFromHash(hash), sizeBytes };
}

/** Streams a file. Each chunk has memory of its own. Throws the system's ENOENT if there is no such file. */
export async function* readChunks(path: string): AsyncGenerator<Uint8Array> {
  const file = await open(path, "r");
  try {
    for (;;) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(chunkSizeBytes), 0, chunkSizeBytes);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

/** One write may take fewer bytes than it was given. */
async function writeWhole(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let offset = 0; offset < chunk.byteLength; ) {
    offset += (await file.write(chunk, offset)).bytesWritten;
  }
}
