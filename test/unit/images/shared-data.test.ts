import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { prepare } from "./inputs.ts";

const archive = join(process.env.MILLRACE_SHARED_DATA ?? "../shared/data", "cifar10-images.tar.gz");
const skip = existsSync(archive) ? false : `${archive} is not there; MILLRACE_SHARED_DATA may name another folder`;

it("a real archive of 55,000 JPEGs is prepared with a limit", { skip }, async (t) => {
  const { dataset, manifest } = await prepare(t, { source: archive, limitPerClass: 20 });
  assert.deepEqual([dataset.trainImages, dataset.testImages, dataset.skippedImages], [200, 200, 0]);
  assert.deepEqual([dataset.classes[0], dataset.classes[9]], ["airplane", "truck"]);
  assert.ok(
    manifest.channelMeans.every((mean) => mean > 0.35 && mean < 0.6),
    String(manifest.channelMeans),
  );
});
