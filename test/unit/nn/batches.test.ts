/** Batches by their position in the training. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { allocateBatch, type BatchMaker, createBatchMaker, stepsPerEpochOf } from "../../../lib/nn/batches.ts";
import { resolveTrainingConfig } from "../../../lib/nn/configuration.ts";
import { checkTrainingData, type TrainingData } from "../../../lib/nn/training-data.ts";
import type { MaskInput } from "../../../lib/nn/training-graph.ts";
import type { TrainingBatch } from "../../../lib/nn/training-session.ts";
import { blotData, greyBlotData } from "./training-data.ts";

const data = blotData({ images: 50 });
const allImages = Uint32Array.from(data.labels, (_, index) => index);
const masks: readonly MaskInput[] = [
  { name: "first", shape: [8, 6], rate: 0.3 },
  { name: "second", shape: [8, 6], rate: 0.3 },
];
const everything = { horizontalFlip: "alternating", translation: 2, cutout: 3, colorJitter: 0.3, mixup: 0.4 };

interface MakerChanges {
  readonly config?: object;
  readonly augmentation?: object;
  readonly images?: Uint32Array;
  readonly data?: TrainingData;
}

function makerFor({ config, augmentation = {}, images = allImages, data: changed = data }: MakerChanges = {}) {
  const plain = { batchSize: 8, labelSmoothing: 0 };
  const chosen = { horizontalFlip: "none", translation: 0, ...augmentation };
  const resolved = resolveTrainingConfig("small", { ...plain, augmentation: chosen, ...config });
  const options = { data: changed, config: resolved, masks, images };
  return { maker: createBatchMaker(options), allocate: () => allocateBatch(options) };
}

function batchOf({ maker, allocate }: { maker: BatchMaker; allocate: () => TrainingBatch }, step: number) {
  const batch = allocate();
  maker.fill(step, batch);
  return batch;
}

/** Which image each of a batch's unchanged images is. */
function imagesOf({ pixels }: TrainingBatch): number[] {
  const key = (values: Uint8Array, image: number): string => values.subarray(image * 192, (image + 1) * 192).join();
  const indices = new Map(Array.from(allImages, (image) => [key(data.pixels, image), image]));
  return Array.from({ length: 8 }, (_, slot) => indices.get(key(pixels, slot)) ?? -1);
}

function labelsOf({ targets }: TrainingBatch): number[] {
  return Array.from({ length: 8 }, (_, slot) => targets.subarray(slot * 4, (slot + 1) * 4).indexOf(1));
}

test("a batch depends on its step alone, not on those made before", () => {
  const inOrder = makerFor({ augmentation: everything });
  const batches = Array.from({ length: 14 }, (_, step) => batchOf(inOrder, step));
  const another = makerFor({ augmentation: everything });
  for (const step of [13, 2, 7, 0]) assert.deepEqual(batchOf(another, step), batches[step]);
  assert.deepEqual(batchOf(makerFor({ augmentation: everything }), 9), batches[9]);
});

test("the seed changes a batch", () => {
  const [one, two] = [1, 2].map((seed) => batchOf(makerFor({ config: { seed } }), 0));
  assert.notDeepEqual(one?.pixels, two?.pixels);
  assert.notDeepEqual(one?.masks, two?.masks);
});

test("an epoch shows every image at most once with its label, the next one in another order", () => {
  const made = makerFor();
  assert.equal(stepsPerEpochOf(allImages, { batchSize: 8 }), 6);
  const epochs = [0, 1].map((epoch) => {
    const batches = Array.from({ length: 6 }, (_, step) => batchOf(made, 6 * epoch + step));
    const images = batches.flatMap(imagesOf);
    assert.equal(new Set(images).size, 48);
    assert.ok(images.every((image) => image >= 0));
    assert.deepEqual(
      batches.flatMap(labelsOf),
      images.map((image) => data.labels[image]),
    );
    return images;
  });
  assert.notDeepEqual(epochs[0], epochs[1]);
});

test("only the images that are given are trained on", () => {
  const images = Uint32Array.of(3, 5, 7, 9, 11, 13, 15, 17, 19);
  const made = makerFor({ images });
  const seen = Array.from({ length: 20 }, (_, step) => imagesOf(batchOf(made, step))).flat();
  assert.deepEqual(new Set(seen), new Set(images));
});

for (const [name, value] of Object.entries(everything)) {
  test(`${name} changes neither the order nor the masks nor what the other options draw`, () => {
    const { [name]: _, ...others } = everything as Record<string, unknown>;
    const [plain, only] = [batchOf(makerFor(), 8), batchOf(makerFor({ augmentation: { [name]: value } }), 8)];
    assert.notDeepEqual(only.pixels, plain.pixels);
    assert.deepEqual(only.masks, plain.masks);
    if (name !== "mixup") assert.deepEqual(only.targets, plain.targets);

    // Of the other options mixup alone shows what it has drawn whatever was done to the pixels: in the targets.
    if (name === "mixup") return;
    const [without, all] = [others, everything].map((augmentation) => batchOf(makerFor({ augmentation }), 8));
    assert.deepEqual(all?.targets, without?.targets);
  });
}

test("the masks of a batch differ from each other and from those of the next", () => {
  const made = makerFor();
  const drawn = [0, 1].flatMap((step) => batchOf(made, step).masks.map((mask) => mask.join()));
  assert.equal(new Set(drawn).size, 4);
});

test("two epochs of alternating flips show each image both ways round", () => {
  const made = makerFor({ augmentation: { horizontalFlip: "alternating" }, images: allImages.subarray(0, 48) });
  const shown = Array.from({ length: 12 }, (_, step) => batchOf(made, step)).flatMap(imagesOf);
  // A mirrored image is none of the data's.
  assert.equal(shown.filter((image) => image < 0).length, 48);
  assert.equal(new Set(shown.filter((image) => image >= 0)).size, 48);
});

test("translation moves images by every number of pixels up to the limit, each way", () => {
  const gradient: TrainingData = { ...data, pixels: new Uint8Array(new SharedArrayBuffer(data.pixels.length)) };
  for (const index of gradient.pixels.keys()) gradient.pixels[index] = 10 * (index % 8) + (Math.floor(index / 8) % 8);
  const made = makerFor({ data: gradient, augmentation: { translation: 2 } });
  // Pixel (4, 4) of the first channel tells where it comes from.
  const sources = Array.from({ length: 60 }, (_, step) => batchOf(made, step).pixels).flatMap((pixels) =>
    Array.from({ length: 8 }, (_, slot) => pixels[slot * 192 + 36] ?? 0),
  );
  const expected = [2, 3, 4, 5, 6].flatMap((x) => [2, 3, 4, 5, 6].map((y) => 10 * x + y));
  assert.deepEqual(
    [...new Set(sources)].sort((a, b) => a - b),
    expected,
  );
});

test("random flips mirror about half of the images", () => {
  const made = makerFor({ augmentation: { horizontalFlip: "random" } });
  const shown = Array.from({ length: 60 }, (_, step) => imagesOf(batchOf(made, step))).flat();
  const flips = shown.filter((image) => image < 0).length;
  assert.ok(flips > 190 && flips < 290, `${flips} of 480`);
});

test("cutout fills with the channels' means", () => {
  const colored = { ...data, mean: [0, 0.5, 1] };
  const { pixels } = batchOf(makerFor({ data: colored, augmentation: { cutout: 8 } }), 0);
  const [{ pixels: plain }, filled] = [batchOf(makerFor(), 0), new Set<string>()];
  for (const [index, value] of pixels.entries()) {
    if (value !== plain[index]) filled.add(`${Math.floor(index / 64) % 3}: ${value}`);
  }
  assert.deepEqual([...filled].sort(), ["0: 0", "1: 128", "2: 255"]);
});

test("grey images take every augmentation, and colour jitter changes their brightness and contrast", () => {
  const grey = greyBlotData({ images: 50 });
  const [plain, jittered, all] = [{}, { colorJitter: 0.3 }, everything].map((augmentation) =>
    batchOf(makerFor({ data: grey, augmentation }), 0),
  );
  assert.equal(all?.pixels.length, 8 * 64);
  for (let image = 0; image < 8; image++) {
    const [before, after] = [plain, jittered].map((batch) => batch?.pixels.subarray(image * 64, (image + 1) * 64));
    assert.notDeepEqual(after, before);
    // One line for all pixels: the order of brightnesses stays.
    const order = Array.from(before ?? [], (_, index) => index).sort((a, b) => (before?.[a] ?? 0) - (before?.[b] ?? 0));
    const moved = order.map((index) => after?.[index] ?? 0);
    assert.deepEqual(
      moved,
      moved.toSorted((a, b) => a - b),
    );
  }
});

test("rows of targets sum to the weight of their class", () => {
  const sums = (config: object, images?: Uint32Array): Map<number, number> => {
    const made = makerFor({ config: { labelSmoothing: 0.2, ...config }, ...(images && { images }) });
    const rows = Array.from({ length: 10 }, (_, step) => batchOf(made, step).targets).flatMap((targets) =>
      Array.from({ length: 8 }, (_, slot) => targets.subarray(slot * 4, (slot + 1) * 4)),
    );
    return new Map(rows.map((row) => [row.indexOf(Math.max(...row)), Math.fround(row.reduce((a, b) => a + b))]));
  };
  const sorted = (map: Map<number, number>): number[] => [...map].sort().map(([, sum]) => Math.round(sum * 1e5) / 1e5);
  assert.deepEqual(sorted(sums({})), [1, 1, 1, 1]);
  assert.deepEqual(sorted(sums({ classWeights: [2, 0.5, 1, 4] })), [2, 0.5, 1, 4]);
  // Label = index % 4: six images of class 0, three of 1, two of 2, one of 3.
  const images = Uint32Array.of(0, 4, 8, 12, 16, 20, 1, 5, 9, 2, 6, 3);
  assert.deepEqual(sorted(sums({ classWeights: "balanced" }, images)), [0.5, 1, 1.5, 3]);
});

const refused = {
  "a list of class weights of another length": { key: "classWeights", config: { classWeights: [1, 2, 3] } },
  "a translation as large as the image": {
    key: "augmentation.translation",
    config: { augmentation: { translation: 8 } },
  },
  "a cutout larger than the image": { key: "augmentation.cutout", config: { augmentation: { cutout: 9 } } },
};

for (const [name, { key, config }] of Object.entries(refused)) {
  test(`${name} is refused`, () => {
    const resolved = resolveTrainingConfig("small", { batchSize: 8, ...config });
    assert.throws(() => checkTrainingData(data, resolved), { code: "CONFIGURATION_INVALID", details: { key } });
  });
}
