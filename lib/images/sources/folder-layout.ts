import { AppError } from "../../errors.ts";
import type { TreeFile } from "../files/file-tree.ts";
import { randomFor, shuffled } from "../random.ts";
import type { LeftOut, SplitName } from "./source.ts";

/** An image file with the place that it takes in the data set. */
export interface PlannedImage {
  readonly file: TreeFile;
  readonly split: SplitName;
  readonly label: number;
}

/** Which files of a tree become which images. */
export interface LayoutPlan {
  /** Class names, sorted by their characters' codes. */
  readonly classes: readonly string[];
  /** Train first, then test; each mixed. */
  readonly images: readonly PlannedImage[];
  /** Images that lie where no class can be told. */
  readonly leftOut: readonly LeftOut[];
}

export interface LayoutOptions {
  /** Name of the source in messages. */
  readonly source: string;
  readonly limitPerClass: number;
  readonly seed: bigint;
  readonly testShare: number;
}

/** File names that promise an image. Files outside of class folders are minded only if they have one. */
const imageName = /\.(jpe?g|png|webp|avif|heif|gif|tiff?|svg|bmp)$/i;

/** The files of one class, by split; `undivided` where the layout has no train/ and test/. */
type ClassFiles = Record<SplitName | "undivided", TreeFile[]>;

/**
 * Finds classes and splits in the paths of a folder or archive: `train/<class>/...` and `test/<class>/...`, or
 * `<class>/...` to be split here, either of them below one wrapping folder or not.
 *
 * Files are sorted by path and then mixed by the seed, class by class, so neither the order in which an archive has them
 * nor the file system's plays a part; a limit takes the first of that order, so a lower limit takes a part of what a
 * higher one takes. At the end each split is mixed as a whole.
 *
 * @throws AppError DATASET_INVALID with fewer than two classes, or when a class has no image to train or to test on.
 */
export function planLayout(files: readonly TreeFile[], options: LayoutOptions): LayoutPlan {
  const root = wrappingFolder(files);
  // An archive may hold a path twice; as when it is unpacked, the last counts.
  const unique = [...new Map(files.map((file) => [file.path, file])).values()];
  const below = unique.map((file) => ({ file, parts: file.path.slice(root.length).split("/") }));
  // A folder that holds images itself may be a class of that name: trains are things, too.
  const divided = below.some(({ parts }) => isSplit(parts[0]) && parts.length > 2);
  const byClass = new Map<string, ClassFiles>();
  const leftOut: LeftOut[] = [];
  for (const { file, parts } of below) {
    const [split, name, ...rest] = divided ? parts : ["undivided" as const, ...parts];
    if (name !== undefined && rest.length > 0 && (split === "undivided" || isSplit(split))) {
      const own = byClass.get(name) ?? { train: [], test: [], undivided: [] };
      byClass.set(name, own);
      own[split].push(file);
    } else if (imageName.test(file.path)) {
      leftOut.push({ path: file.path, reason: `it lies in no class folder${divided ? " of train/ or test/" : ""}` });
    }
  }
  const classes = [...byClass.keys()].sort(byCode);
  requireClasses(classes, options.source, leftOut);
  const images = classes.flatMap((name, label) => planClass(name, label, byClass.get(name) as ClassFiles, options));
  const mixed = (split: SplitName): PlannedImage[] => {
    const own = images.filter((image) => image.split === split);
    return shuffled(randomFor(options.seed, "order", split), own);
  };
  return { classes, images: [...mixed("train"), ...mixed("test")], leftOut };
}

function planClass(name: string, label: number, files: ClassFiles, options: LayoutOptions): PlannedImage[] {
  const { seed, limitPerClass, testShare, source } = options;
  const mix = (split: SplitName | "undivided"): TreeFile[] => {
    const sorted = files[split].sort((one, other) => byCode(one.path, other.path));
    return shuffled(randomFor(seed, "class", split, name), sorted);
  };
  const undivided = mix("undivided");
  const testCount = Math.min(Math.max(Math.round(undivided.length * testShare), 1), undivided.length - 1);
  const own = {
    train: [...mix("train"), ...undivided.slice(Math.max(testCount, 0))],
    test: [...mix("test"), ...undivided.slice(0, Math.max(testCount, 0))],
  };
  return (["train", "test"] as const).flatMap((split) => {
    if (own[split].length === 0) {
      const remedy = undivided.length > 0 ? "a class needs two images at least" : `add images to ${split}/${name}/`;
      const message = `${source}: class ${JSON.stringify(name)} has no image for the ${split} split; ${remedy}`;
      throw new AppError("DATASET_INVALID", message);
    }
    return own[split].slice(0, limitPerClass).map((file) => ({ file, split, label }));
  });
}

/** The folder, with a "/" at its end, that holds everything else; "" if there is none. A split folder does not count. */
function wrappingFolder(files: readonly TreeFile[]): string {
  const nested = files.filter(({ path }) => path.includes("/"));
  const first = nested[0]?.path.split("/")[0];
  if (first === undefined || isSplit(first)) return "";
  const root = `${first}/`;
  // Below a wrapping folder there are folders; a single class's folder holds files.
  const wraps =
    nested.every(({ path }) => path.startsWith(root)) && nested.some(({ path }) => path.split("/").length > 2);
  return wraps ? root : "";
}

function requireClasses(classes: readonly string[], source: string, leftOut: readonly LeftOut[]): void {
  if (classes.length >= 2) return;
  const found = classes.length === 0 ? "no images in class folders" : `only one class, ${JSON.stringify(classes[0])}`;
  const stray = leftOut[0] === undefined ? "" : `; ${leftOut[0].path} is left out because ${leftOut[0].reason}`;
  const layout = "it takes two classes at least, as train/<class>/ and test/<class>/ or as <class>/ folders";
  throw new AppError("DATASET_INVALID", `${source} holds ${found}; ${layout}${stray}`);
}

function isSplit(name: string | undefined): name is SplitName {
  return name === "train" || name === "test";
}

/** Compares by the characters' codes: the same in every locale. */
function byCode(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}
