/** Static shapes. Every value of a graph has one when it is built, so a mistake is found there and not at run time. */
import { AppError } from "../../errors.ts";

/** Length of an axis, or a name (such as "N") that stands for any length. */
export type Dimension = number | string;

/** Lengths of the axes, outermost first. Empty for a scalar. */
export type Shape = readonly Dimension[];

/** Number of elements. A shape with a symbolic axis has none and is an error. */
export function elementCount(shape: Shape): number {
  return shape.reduce<number>((count, dimension) => count * fixed(dimension), 1);
}

/** The length of an axis that must be known. */
export function fixed(dimension: Dimension | undefined): number {
  if (typeof dimension === "number") return dimension;
  throw shapeError(`axis of length ${dimension ?? "nothing"} where a fixed length is needed`);
}

/** The shape that two shapes broadcast to, by the rules of NumPy. */
export function broadcast(left: Shape, right: Shape): Shape {
  const rank = Math.max(left.length, right.length);
  return Array.from({ length: rank }, (_, axis) => {
    const a = left[axis - rank + left.length] ?? 1;
    const b = right[axis - rank + right.length] ?? 1;
    if (a === b || b === 1) return a;
    if (a === 1) return b;
    throw shapeError(`shapes ${formatShape(left)} and ${formatShape(right)} do not broadcast`);
  });
}

export function isSameShape(left: Shape, right: Shape): boolean {
  return left.length === right.length && left.every((dimension, axis) => dimension === right[axis]);
}

/** A shape for people: `[N, 3, 32, 32]`. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** What is thrown for shapes that do not fit. The compiler adds the layer's name. */
export function shapeError(message: string): AppError {
  return new AppError("INVALID_REQUEST", message);
}
