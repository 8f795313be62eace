import { setImmediate as nextTurn } from "node:timers/promises";
import { artSets } from "../pictograms/art-sets.ts";
import { composePictogram, drawingOversampling, testVariation, trainVariation } from "../pictograms/composition.ts";
import { type Drawing, readDrawings } from "../pictograms/drawings.ts";
import { randomFor } from "../random.ts";
import { cifar10Classes } from "./cifar10-classes.ts";
import type { ImageSource, SourceItem, SourceOptions, SplitName } from "./source.ts";

/** Images of a class where no lower limit is asked for. */
const imagesPerClass: Readonly<Record<SplitName, number>> = { train: 400, test: 100 };

const variations = { train: trainVariation, test: testVariation };

/** Longest stretch for which drawing holds the event loop, in milliseconds. */
const turnMs = 10;

/**
 * The built-in data set: drawings from open emoji art before random backgrounds, made when asked for.
 *
 * An image is a function of the seed and its place: class, split and number. The classes take turns, and so do a class's
 * drawings, so any run of images is balanced, and a lower limit takes a part of what a higher one takes.
 */
export function openPictograms(options: SourceOptions): ImageSource {
  const counts = {
    train: Math.min(imagesPerClass.train, options.limitPerClass),
    test: Math.min(imagesPerClass.test, options.limitPerClass),
  };
  return {
    name: "pictograms",
    title: "pictograms",
    description: describe(),
    classes: cifar10Classes,
    phase: "drawing",
    total: (counts.train + counts.test) * cifar10Classes.length,
    async *items(signal) {
      yield* drawSplit("train", counts.train, options, signal);
      yield* drawSplit("test", counts.test, options, signal);
    },
    async [Symbol.asyncDispose]() {},
  };
}

async function* drawSplit(
  split: SplitName,
  count: number,
  { shape, seed }: SourceOptions,
  signal: AbortSignal,
): AsyncGenerator<SourceItem> {
  const size = shape.width;
  const drawings = await drawingsOf(split, size * drawingOversampling);
  let turnEnd = performance.now() + turnMs;
  for (let number = 0; number < count; number++) {
    for (const [label, own] of drawings.entries()) {
      const drawing = own[number % own.length] as Drawing;
      const random = randomFor(seed, "pictogram", split, label, number);
      const pixels = composePictogram(drawing, { size, variation: variations[split], random });
      yield { kind: "image", split, label, pixels };
      if (performance.now() < turnEnd) continue;
      await nextTurn(undefined, { signal });
      turnEnd = performance.now() + turnMs;
    }
  }
}

/** The drawings of each class in a split, the sets taking turns. */
async function drawingsOf(split: SplitName, size: number): Promise<Drawing[][]> {
  const sets: Drawing[][][] = [];
  for (const set of artSets.filter((candidate) => candidate.split === split)) sets.push(await readDrawings(set, size));
  return cifar10Classes.map((_, label) => {
    const own = sets.map((set) => set[label] ?? []);
    const most = Math.max(...own.map((drawings) => drawings.length));
    return Array.from({ length: most }, (_, turn) => own.flatMap((drawings) => drawings[turn] ?? [])).flat();
  });
}

function describe(): string {
  const list = (split: SplitName): string =>
    artSets
      .filter((set) => set.split === split)
      .map((set) => `${set.title} (${set.author}, ${set.licence})`)
      .join(", ");
  return `Pictograms before random backgrounds, drawn from open art; train: ${list("train")}; test: ${list("test")}.`;
}
