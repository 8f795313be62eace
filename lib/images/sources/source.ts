/** The two parts of a data set: images to learn from, and images to be measured on. */
export type SplitName = "train" | "test";

/** Shape of an image: unsigned 8-bit values, channel by channel (red, green, blue), row by row. */
export interface PixelShape {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
}

/** A file that is left out of a data set. */
export interface LeftOut {
  /** Path within the source. */
  readonly path: string;
  /** Why, in a sentence without a full stop. */
  readonly reason: string;
}

/** What a source yields: an image, or word of one that could not be read. */
export type SourceItem =
  | { readonly kind: "image"; readonly split: SplitName; readonly label: number; readonly pixels: Uint8Array }
  | ({ readonly kind: "left-out" } & LeftOut);

/** Images with labels, from wherever they come. */
export interface ImageSource extends AsyncDisposable {
  /** The kind of source, for the manifest: it must not depend on where the source lies. */
  readonly name: string;
  /** What people call this very source: for a folder or archive, its own name. */
  readonly title: string;
  /** What the source is, and under which licences, in a sentence for people. */
  readonly description: string;
  /** Class names in label order. */
  readonly classes: readonly string[];
  /** What is done to its images. */
  readonly phase: "decoding" | "drawing";
  /** Items that `items` will yield. */
  readonly total: number;
  /**
   * The items, in an order that is the same each time: mixed, so that a part of a shard is a fair sample of its split.
   * The pixels of an item are the taker's.
   */
  items(signal: AbortSignal): AsyncIterable<SourceItem>;
}

/** What every source needs to know of the request. */
export interface SourceOptions {
  readonly shape: PixelShape;
  /** Most images of a class in each split; Infinity takes all. */
  readonly limitPerClass: number;
  readonly seed: bigint;
  /** Share of each class that becomes the test split where the source does not say. */
  readonly testShare: number;
  /** A folder for downloads and unpacked archives. */
  readonly cacheFolder: string;
  readonly signal: AbortSignal;
}
