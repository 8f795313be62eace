import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { extract } from "tar-stream";
import { fromBufferPromise } from "yauzl";
import type { BinarySource } from "./program.ts";

/** The version that is fetched. */
const releaseVersion = "2.15.1";
const releaseUrl = "https://github.com/nats-io/nats-server/releases/download";

/** How long one file may take as a whole: 8 MB over a slow line. */
const downloadTimeoutMs = 180_000;
const maxArchiveBytes = 64 * 1024 * 1024;

export interface ReleaseOptions {
  /** The part of the address before `/v<version>/<file>`. */
  readonly baseUrl?: string;
  readonly version?: string;
  readonly platform?: NodeJS.Platform;
  readonly arch?: NodeJS.Architecture;
  /** How long the host may take to begin an answer. Default: 5,000; short, because a closed network often drops packets silently. */
  readonly answerTimeoutMs?: number;
}

/**
 * The project's own release for this platform, checked against the SHA256SUMS that is published beside it. That proves
 * the download whole; that it is the project's is proved by TLS alone.
 */
export function officialRelease(options: ReleaseOptions = {}): BinarySource {
  const { baseUrl = releaseUrl, version = releaseVersion } = options;
  const { platform = process.platform, arch = process.arch, answerTimeoutMs = 5_000 } = options;
  return {
    name: `the official release ${version}`,
    async fetch(folder) {
      const file = archiveName(version, platform, arch);
      const sums = await download(`${baseUrl}/v${version}/SHA256SUMS`, answerTimeoutMs);
      const archive = await download(`${baseUrl}/v${version}/${file}`, answerTimeoutMs);
      verify(archive, file, sums.toString("utf8"));
      const target = join(folder, "nats-server-released");
      const found = file.endsWith(".zip") ? await unzip(archive, target) : await untar(archive, target);
      if (!found) throw new Error(`${file} holds no nats-server`);
      return target;
    },
  };
}

function archiveName(version: string, platform: NodeJS.Platform, arch: NodeJS.Architecture): string {
  const system = ({ linux: "linux", darwin: "darwin", win32: "windows" } as Record<string, string>)[platform];
  const machine = (
    { x64: "amd64", arm64: "arm64", arm: "arm7", ia32: "386", s390x: "s390x" } as Record<string, string>
  )[arch];
  if (system === undefined || machine === undefined) throw new Error(`no release for ${platform} on ${arch}`);
  return `nats-server-v${version}-${system}-${machine}.${system === "windows" ? "zip" : "tar.gz"}`;
}

/** A whole file in memory. */
async function download(url: string, answerTimeoutMs: number): Promise<Buffer> {
  const answer = new AbortController();
  const timer = setTimeout(() => {
    answer.abort(new Error(`no answer within ${answerTimeoutMs} ms from ${url}`));
  }, answerTimeoutMs);
  try {
    const signal = AbortSignal.any([answer.signal, AbortSignal.timeout(downloadTimeoutMs)]);
    const response = await fetch(url, { signal });
    clearTimeout(timer);
    if (!response.ok || response.body === null) throw new Error(`status ${response.status} from ${url}`);
    return await readAtMost(Readable.fromWeb(response.body as never), maxArchiveBytes, url);
  } catch (error) {
    // fetch says only "fetch failed" and keeps the reason, such as the name that did not resolve, in the cause.
    const reason = error instanceof TypeError && error.cause instanceof Error ? error.cause.message : undefined;
    throw reason === undefined ? error : new Error(`${reason} (${url})`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

async function readAtMost(source: AsyncIterable<Uint8Array>, limitBytes: number, url: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of source) {
    size += chunk.byteLength;
    if (size > limitBytes) throw new Error(`more than ${limitBytes} bytes from ${url}`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Lines of SHA256SUMS are "<digest>  <file>". */
function verify(archive: Buffer, file: string, sums: string): void {
  const line = sums.split("\n").find((entry) => entry.trim().split(/\s+\*?/)[1] === file);
  const published = line?.trim().split(/\s+/)[0]?.toLowerCase();
  if (published === undefined) throw new Error(`SHA256SUMS does not list ${file}`);
  const actual = createHash("sha256").update(archive).digest("hex");
  if (actual !== published) throw new Error(`${file} has SHA-256 ${actual}, but ${published} is published`);
}

/** Writes the archive's nats-server to `target`; false if there is none. */
async function untar(archive: Buffer, target: string): Promise<boolean> {
  const entries = extract();
  const unpacking = pipeline(Readable.from([archive]), createGunzip(), entries);
  unpacking.catch(() => {}); // a damaged archive ends the loop with the same error before this is awaited
  let found = false;
  for await (const entry of entries) {
    if (entry.header.type === "file" && basename(entry.header.name) === "nats-server") {
      await pipeline(entry, createWriteStream(target));
      found = true;
    } else {
      entry.resume();
    }
  }
  await unpacking;
  return found;
}

/** As `untar`, for the archives of Windows. */
async function unzip(archive: Buffer, target: string): Promise<boolean> {
  const zip = await fromBufferPromise(archive);
  for await (const entry of zip.eachEntry()) {
    if (basename(entry.fileName) !== "nats-server.exe") continue;
    await writeFile(target, await zip.openReadStreamPromise(entry));
    return true;
  }
  return false;
}
