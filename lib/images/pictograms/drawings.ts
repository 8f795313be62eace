import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { AppError } from "../../errors.ts";
import { type Cifar10Class, cifar10Classes } from "../sources/cifar10-classes.ts";
import { type ArtSet, drawingNames } from "./art-sets.ts";

/** A drawing as pixels: `size` x `size`, red, green, blue and alpha of each, the colours already multiplied by alpha. */
export interface Drawing {
  readonly size: number;
  readonly rgba: Uint8Array;
}

interface Icon {
  readonly body: string;
  readonly width?: number;
  readonly height?: number;
}

/**
 * Rasterises a set's drawings, class by class in label order and in the order of the table of names.
 *
 * @param size width and height in pixels.
 */
export async function readDrawings(set: ArtSet, size: number): Promise<Drawing[][]> {
  const iconOf = await readIcons(set.id);
  const drawingsOf = (className: Cifar10Class): Promise<Drawing[]> => {
    const icons = drawingNames[className].map(iconOf).filter((icon) => icon !== undefined);
    return Promise.all(icons.map((icon) => rasterise(icon, size)));
  };
  const drawings: Drawing[][] = [];
  for (const className of cifar10Classes) drawings.push(await drawingsOf(className));
  return drawings;
}

/**
 * Looks icons up in a set's file without parsing it as a whole: the largest has 100 MB, of which a few hundred kilobytes
 * are wanted, and parsing it would hold the event loop for a second. The packages write one key a line, indented by tabs.
 */
async function readIcons(setId: string): Promise<(name: string) => Required<Icon> | undefined> {
  const file = await readFile(fileURLToPath(import.meta.resolve(`@iconify-json/${setId}/icons.json`)));
  const starts = new Map<string, number>();
  const mark = '\n\t\t"';
  const icons = file.subarray(0, file.indexOf("\n\t}"));
  for (let at = icons.indexOf(mark); at >= 0; at = icons.indexOf(mark, at + mark.length)) {
    const nameStart = at + mark.length;
    starts.set(icons.toString("utf8", nameStart, icons.indexOf('"', nameStart)), nameStart - 1);
  }
  const defaults = JSON.parse(`{${file.subarray(file.lastIndexOf('"lastModified"')).toString()}`) as Partial<Icon>;
  return (name) => {
    const start = starts.get(name);
    if (start === undefined) return undefined;
    const text = `{${icons.subarray(start, icons.indexOf("\n\t\t}", start)).toString()}}}`;
    const icon = (JSON.parse(text) as Record<string, Icon>)[name];
    if (icon === undefined) throw new AppError("INTERNAL", `drawing ${name} of ${setId} cannot be read`);
    return { body: icon.body, width: icon.width ?? defaults.width ?? 16, height: icon.height ?? defaults.height ?? 16 };
  };
}

async function rasterise(icon: Required<Icon>, size: number): Promise<Drawing> {
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${size}" height="${size}" ` +
    `viewBox="0 0 ${icon.width} ${icon.height}">${icon.body}</svg>`;
  const rgba = await sharp(Buffer.from(svg)).ensureAlpha().raw().toBuffer();
  for (let at = 0; at < rgba.length; at += 4) {
    const alpha = (rgba[at + 3] ?? 0) / 255;
    for (let channel = 0; channel < 3; channel++) rgba[at + channel] = Math.round((rgba[at + channel] ?? 0) * alpha);
  }
  return { size, rgba };
}
