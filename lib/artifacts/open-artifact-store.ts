import { fileURLToPath } from "node:url";
import type { NatsConnection } from "@nats-io/nats-core";
import { AppError } from "../errors.ts";
import { openFolderStore } from "./folder-store.ts";
import { openObjectStore } from "./object-store.ts";
import type { ArtifactStore } from "./store.ts";
import { tracedStore } from "./traced-store.ts";

export interface OpenOptions {
  /** Connection for `nats://`. */
  readonly nc?: NatsConnection;
  /** How long a transfer may stand still, in ms. Default: 30,000. */
  readonly idleTimeoutMs?: number;
  /** Copies that a bucket keeps, at least. Default: 1. */
  readonly replicas?: number;
}

/**
 * Opens the store that an address names: `file:some/folder` (relative to the working directory), `file:///folder`, or
 * `nats://bucket` with a connection. Throws CONFIGURATION_INVALID for any other address.
 */
export async function openArtifactStore(url: string, options: OpenOptions = {}): Promise<ArtifactStore> {
  const { nc, ...limits } = options;
  const folder = folderOf(url);
  if (folder !== undefined) return tracedStore(await openFolderStore(folder, limits), "file");

  const bucket = /^nats:\/\/([A-Za-z0-9_-]+)\/?$/.exec(url)?.[1];
  if (bucket === undefined) throw invalid(url, "expected file:FOLDER, file:///FOLDER or nats://BUCKET");
  if (nc === undefined) throw invalid(url, "it needs a connection to NATS, and there is none");
  return tracedStore(await openObjectStore(nc, { bucket, ...limits }), "nats");
}

function folderOf(url: string): string | undefined {
  if (!url.startsWith("file:") || url === "file:") return undefined;
  if (!url.startsWith("file://")) return url.slice("file:".length);
  try {
    return fileURLToPath(url);
  } catch (error) {
    throw invalid(url, AppError.from(error).message);
  }
}

function invalid(url: string, problem: string): AppError {
  return new AppError("CONFIGURATION_INVALID", `"${url}" is no address of an artifact store: ${problem}`, {
    details: { url },
  });
}
