import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { createMillraceClient } from "../../client/client.ts";
import type { PredictResponse } from "../../gen/millrace/v1/prediction_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import { loadSplit } from "../../lib/images/load-split.ts";
import { readManifest } from "../../lib/images/manifest.ts";

/** An image file of the data set's test split, and its class. */
export interface Sample {
  readonly path: string;
  readonly label: string;
}

const sampleCount = 3;

/** Writes a few test images, each of another class, as PNG files: something to send to Predict. */
export async function writeSamples(datasetDigest: string, artifactFolder: string, folder: string): Promise<Sample[]> {
  await using artifacts = await openFolderStore(artifactFolder);
  const manifest = await readManifest(datasetDigest, { artifacts });
  const { pixels, labels } = await loadSplit(manifest, "test", { artifacts, signal: new AbortController().signal });
  const { height = 0, width = 0, channels = 0 } = manifest.shape ?? {};
  const size = height * width * channels;
  await mkdir(folder, { recursive: true });
  const chosen = new Map<number, number>();
  for (const [index, label] of labels.entries()) {
    if (chosen.size === sampleCount) break;
    if (!chosen.has(label)) chosen.set(label, index);
  }
  return Promise.all(
    [...chosen].map(async ([label, index]) => {
      const name = manifest.classes[label] ?? String(label);
      const path = join(folder, `${name}.png`);
      const interleaved = interleave(pixels.subarray(index * size, (index + 1) * size), channels);
      await writeFile(
        path,
        await sharp(interleaved, { raw: { width, height, channels: 3 } })
          .png()
          .toBuffer(),
      );
      return { path, label: name };
    }),
  );
}

/** Channel after channel becomes pixel after pixel. */
function interleave(planes: Uint8Array, channels: number): Uint8Array {
  const area = planes.length / channels;
  return Uint8Array.from(planes, (_, index) => planes[(index % channels) * area + Math.floor(index / channels)] ?? 0);
}

/** Sends each file to Predict and returns the answers in order. */
export async function classify(samples: readonly Sample[], baseUrl: string): Promise<PredictResponse[]> {
  const millrace = createMillraceClient({ baseUrl });
  try {
    const answers: PredictResponse[] = [];
    for (const { path } of samples) {
      answers.push(
        await millrace.predictions.predict({ input: { case: "image", value: await readFile(path) }, topK: 3 }),
      );
    }
    return answers;
  } finally {
    millrace.close();
  }
}
