/** Element types of the tensors in our graphs, and how each is laid out in memory. */
import { TensorProto_DataType } from "../../../gen/onnx/onnx_pb.ts";

/** Element types by the names that ONNX Runtime's JavaScript API uses. */
export type ElementType = "float32" | "float64" | "int64" | "uint8" | "bool";

/** The two types that gradients can be calculated in. float64 exists for tests; ONNX Runtime has no float64 convolution. */
export type FloatType = "float32" | "float64";

/** ONNX's number of each element type. */
export const dataTypes: Readonly<Record<ElementType, TensorProto_DataType>> = {
  float32: TensorProto_DataType.FLOAT,
  float64: TensorProto_DataType.DOUBLE,
  int64: TensorProto_DataType.INT64,
  uint8: TensorProto_DataType.UINT8,
  bool: TensorProto_DataType.BOOL,
};

/** The little-endian bytes of `values` in the given type: the `raw_data` of a tensor. */
export function rawData(type: ElementType, values: ArrayLike<number>): Uint8Array {
  const array = typedArray(type, values);
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function typedArray(type: ElementType, values: ArrayLike<number>): ArrayBufferView {
  switch (type) {
    case "float32":
      return values instanceof Float32Array ? values : Float32Array.from(values);
    case "float64":
      return Float64Array.from(values);
    case "int64":
      return BigInt64Array.from(Array.from(values, BigInt));
    case "uint8":
    case "bool":
      return Uint8Array.from(values);
  }
}
