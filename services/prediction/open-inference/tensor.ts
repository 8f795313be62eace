/** Tensors of the Open Inference Protocol, as the rest of the service sees them, whether they came as protobuf, JSON or raw bytes. */
import { AppError } from "../../../lib/errors.ts";

/** Elements flat, row by row: as many as the shape says. */
export type Tensor = { readonly name: string; readonly shape: readonly number[] } & (
  | { readonly datatype: "UINT8"; readonly data: Uint8Array }
  | { readonly datatype: "FP32"; readonly data: Float32Array }
  | { readonly datatype: "BYTES"; readonly data: readonly Uint8Array[] }
);

/** A tensor without its elements. */
export interface TensorHeader {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
}

/** Images of one request at most, as of PredictBatch. */
const maxImages = 256;

/** Of an input that holds images one behind the other. Throws INVALID_REQUEST for none, and for too many. */
export function countImages({ name, shape }: Pick<TensorHeader, "name" | "shape">): number {
  const count = shape[0] ?? 0;
  if (count === 0) throw badInput(name, "holds no image");
  if (count > maxImages) throw badInput(name, `holds ${count} images; at most ${maxImages} are taken at a time`);
  return count;
}

/** That the elements take in memory. */
export function bytesIn({ datatype, data }: Tensor): number {
  return datatype === "BYTES" ? data.reduce((sum, { length }) => sum + length, 0) : data.byteLength;
}

/** An input that cannot be: INVALID_REQUEST that names it. */
export function badInput(name: string, reason: string): AppError {
  return new AppError("INVALID_REQUEST", `input "${name}" ${reason}`, { details: { field: "inputs" } });
}

/** The tensor, once its elements are as many as its shape says. */
export function checkedTensor(tensor: Tensor): Tensor {
  const { name, shape, data } = tensor;
  const count = elementCount({ name, shape });
  if (data.length === count) return tensor;
  throw badInput(name, `has ${data.length} elements, but shape [${shape.join(", ")}] needs ${count}`);
}

function elementCount({ name, shape }: Pick<TensorHeader, "name" | "shape">): number {
  const count = shape.reduce((product, length) => product * length, 1);
  if (shape.length > 0 && shape.every((length) => Number.isInteger(length) && length >= 0)) return count;
  throw badInput(name, `has the shape [${shape.join(", ")}], which is none`);
}

/** A tensor from its elements in the protocol's raw form: little-endian, each of BYTES behind its length in 4 bytes. */
export function tensorFromRaw({ name, datatype, shape }: TensorHeader, bytes: Uint8Array): Tensor {
  switch (datatype) {
    case "UINT8":
      return checkedTensor({ name, shape, datatype, data: bytes });
    case "FP32": {
      if (bytes.length % 4 !== 0) throw badInput(name, `has ${bytes.length} bytes, which are no whole FP32 numbers`);
      // Copied, because the bytes may begin anywhere in their buffer.
      return checkedTensor({ name, shape, datatype, data: new Float32Array(Uint8Array.from(bytes).buffer) });
    }
    case "BYTES":
      return checkedTensor({ name, shape, datatype, data: elementsFromRaw({ name, shape }, bytes) });
    default:
      throw unsupported(name, datatype);
  }
}

export function unsupported(name: string, datatype: string): AppError {
  return badInput(name, `is of datatype ${datatype || "(none)"}; these are taken: BYTES, UINT8, FP32`);
}

const lengthBytes = 4;

function elementsFromRaw(header: Pick<TensorHeader, "name" | "shape">, bytes: Uint8Array): Uint8Array[] {
  const { name, shape } = header;
  elementCount(header);
  // Encoded images are all that comes as BYTES. Millions of empty elements would cost far more memory than their bytes.
  if (shape.length !== 1) throw badInput(name, `must have the shape [n], not [${shape.join(", ")}]`);
  const count = countImages(header);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const elements: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const start = at + lengthBytes;
    const end = start + (start <= bytes.length ? view.getUint32(at, true) : 0);
    if (start > bytes.length || end > bytes.length) throw badInput(name, `ends within its element ${elements.length}`);
    if (elements.length === count)
      throw badInput(name, `has more than the ${count} elements of shape [${shape.join(", ")}]`);
    elements.push(bytes.subarray(start, end));
    at = end;
  }
  return elements;
}

/** The elements in the protocol's raw form. */
export function rawFromTensor({ datatype, data }: Tensor): Uint8Array {
  if (datatype === "UINT8") return data;
  if (datatype === "FP32") return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return Buffer.concat(
    data.flatMap((element) => {
      const length = Buffer.alloc(lengthBytes);
      length.writeUInt32LE(element.length);
      return [length, element];
    }),
  );
}
