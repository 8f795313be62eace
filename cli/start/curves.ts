import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Run } from "../../gen/millrace/v1/pipeline_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { readBytes } from "../../lib/artifacts/read.ts";

/** Writes the curves of a run's training as a file that a browser shows, and returns its path. Undefined for a run that has none. */
export async function writeCurves(run: Run, artifactFolder: string, folder: string): Promise<string | undefined> {
  const curves = run.training?.curves;
  if (curves === undefined) return undefined;
  await using artifacts = await openFolderStore(artifactFolder);
  await mkdir(folder, { recursive: true });
  const path = join(folder, `${run.runId}.svg`);
  await writeFile(path, await readBytes(artifacts, curves.digest));
  return path;
}
