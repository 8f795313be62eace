/**
 * Images a second in the preparation of data sets: `node --import tsx bench/ingestion/prepare.ts [folder of the JPEG archive]`.
 *
 * The pictograms are prepared five times, CIFAR-10 as JPEG files once, if `cifar10-images.tar.gz` lies in the folder (default:
 * MILLRACE_SHARED_DATA, else ../shared/data). Each run has a store and a cache of its own in the system's temporary folder.
 */
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { DatasetSpecSchema } from "../../gen/millrace/v1/dataset_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { prepareDataset } from "../../lib/images/prepare-dataset.ts";

interface Run {
  readonly images: number;
  readonly seconds: number;
}

async function prepareOnce(source: string): Promise<Run> {
  const folder = await mkdtemp(join(tmpdir(), "millrace-bench-"));
  try {
    await using artifacts = await openFolderStore(join(folder, "artifacts"));
    const startedMs = performance.now();
    const { trainImages, testImages } = await prepareDataset(create(DatasetSpecSchema, { source }), {
      artifacts,
      cacheFolder: join(folder, "cache"),
      onProgress: () => undefined,
      signal: new AbortController().signal,
    });
    return { images: trainImages + testImages, seconds: (performance.now() - startedMs) / 1000 };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function measure(source: string, times: number): Promise<void> {
  const runs: Run[] = [];
  for (let time = 0; time < times; time++) runs.push(await prepareOnce(source));
  const sorted = runs.map(({ seconds }) => seconds).sort((one, other) => one - other);
  const median = sorted[Math.floor(times / 2)] ?? 0;
  const images = runs[0]?.images ?? 0;
  const spread = `${sorted[0]?.toFixed(2)} to ${sorted.at(-1)?.toFixed(2)} s`;
  const rate = (images / median).toFixed(0);
  console.log(`${source}: ${images} images, median of ${times}: ${median.toFixed(2)} s (${spread}), ${rate} images/s`);
}

console.log(`${availableParallelism()} cores, ${cpus()[0]?.model ?? "unknown processor"}, Node ${process.version}`);
await measure("pictograms", 5);
const archive = join(process.argv[2] ?? process.env.MILLRACE_SHARED_DATA ?? "../shared/data", "cifar10-images.tar.gz");
if (existsSync(archive)) await measure(archive, 1);
else console.log(`${archive} is not there: skipped`);
console.log(`most memory in use: ${Math.round(process.resourceUsage().maxRSS / 1024)} MB`);
