/**
 * Builds ONNX graphs. Names are made unique here, shapes and element types are known for every value at once, and
 * equal constants are stored once.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import {
  type AttributeProto,
  AttributeProto_AttributeType,
  AttributeProtoSchema,
  type GraphProto,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from "../../../gen/onnx/onnx_pb.ts";
import { elementCount, formatShape, type Shape, shapeError } from "./shape.ts";
import { dataTypes, type ElementType, type FloatType, rawData } from "./tensor-type.ts";

/** Operator set and file format that we write. */
const operatorSetVersion = 17;
const irVersion = 8;

/** Something a node reads or writes. */
export interface Value {
  readonly name: string;
  readonly shape: Shape;
  readonly type: ElementType;
}

/** Attributes by name: whole numbers and lists of them become INT and INTS, `{ float }` becomes FLOAT, text STRING. */
export type Attributes = Readonly<Record<string, number | readonly number[] | string | { readonly float: number }>>;

/** What an output of a new node is. */
export interface OutputSpec {
  readonly shape: Shape;
  readonly type: ElementType;
}

export interface Graph {
  /** The type that `constant` has, and that gradients are calculated in. */
  readonly float: FloatType;
  /** A value the caller feeds, under exactly this name. */
  input(name: string, type: ElementType, shape: Shape): Value;
  /** A constant tensor. `hint` is the start of its name. */
  tensor(hint: string, type: ElementType, shape: Shape, values: ArrayLike<number>): Value;
  /** A scalar of the graph's float type. */
  constant(value: number): Value;
  /** A one-dimensional int64 constant: shapes, axes, starts and ends. */
  integers(values: readonly number[]): Value;
  /** Adds a node. An undefined input is an optional one left out. Returns one value for each output. */
  node(
    operator: string,
    inputs: readonly (Value | undefined)[],
    outputs: readonly OutputSpec[],
    attributes?: Attributes,
  ): Value[];
  /** Hands `value` to the caller under exactly this name. */
  output(name: string, value: Value): void;
  /** The model file. */
  toModel(options?: ModelOptions): Uint8Array;
}

export interface ModelOptions {
  /** Written to `metadata_props`. */
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface GraphOptions {
  /** Name of the graph. */
  readonly name: string;
  /** Default float32. */
  readonly float?: FloatType;
}

/** An empty graph. */
export function createGraph(options: GraphOptions): Graph {
  const float = options.float ?? "float32";
  const nodes: NodeProto[] = [];
  const initializers: TensorProto[] = [];
  const inputs: ValueInfoProto[] = [];
  const outputs: ValueInfoProto[] = [];
  const pool = new Map<string, Value>();
  const uniqueName = createNaming();

  const graph: Graph = {
    float,
    input(name, type, shape) {
      const value = { name: uniqueName(name, true), type, shape };
      inputs.push(valueInfo(value));
      return value;
    },
    tensor(hint, type, shape, values) {
      if (values.length !== elementCount(shape)) {
        throw shapeError(
          `constant ${hint} has ${values.length} elements, its shape ${formatShape(shape)} another number`,
        );
      }
      const value = { name: uniqueName(hint), type, shape };
      initializers.push(tensorProto(value, values));
      return value;
    },
    constant: (value) => pooled(pool, `${float} ${value}`, () => graph.tensor("constant", float, [], [value])),
    integers: (values) =>
      pooled(pool, `int64 ${values}`, () => graph.tensor("integers", "int64", [values.length], values)),
    node(operator, nodeInputs, specs, attributes = {}) {
      const values = specs.map((spec) => ({ ...spec, name: uniqueName(operator) }));
      nodes.push(nodeProto(operator, nodeInputs, values, attributes));
      return values;
    },
    output(name, value) {
      const renamed = { ...value, name: uniqueName(name, true) };
      nodes.push(nodeProto("Identity", [value], [renamed], {}));
      outputs.push(valueInfo(renamed));
    },
    toModel({ metadata = {} } = {}) {
      const parts = { name: options.name, node: nodes, initializer: initializers, input: inputs, output: outputs };
      return modelBytes(create(GraphProtoSchema, parts), metadata);
    },
  };
  return graph;
}

/** The first (often only) output of a new node. */
export function single(values: readonly Value[]): Value {
  const [value] = values;
  if (value === undefined) throw shapeError("the node has no output");
  return value;
}

function modelBytes(graph: GraphProto, metadata: Readonly<Record<string, string>>): Uint8Array {
  const model = create(ModelProtoSchema, {
    irVersion: BigInt(irVersion),
    opsetImport: [{ domain: "", version: BigInt(operatorSetVersion) }],
    producerName: "millrace",
    graph,
    metadataProps: Object.entries(metadata).map(([key, value]) => ({ key, value })),
  });
  return toBinary(ModelProtoSchema, model);
}

/** Returns a function that hands out names: the hint itself if `exact`, else the hint with a number. */
function createNaming(): (hint: string, exact?: boolean) => string {
  const taken = new Set<string>();
  const counts = new Map<string, number>();
  return (hint, exact = false) => {
    if (exact && taken.has(hint)) throw shapeError(`the graph has two values named ${hint}`);
    let name = hint;
    while (!exact && (name === hint || taken.has(name))) {
      const count = counts.get(hint) ?? 0;
      counts.set(hint, count + 1);
      name = `${hint}_${count}`;
    }
    taken.add(name);
    return name;
  };
}

function pooled(pool: Map<string, Value>, key: string, make: () => Value): Value {
  const value = pool.get(key) ?? make();
  pool.set(key, value);
  return value;
}

function tensorProto(value: Value, values: ArrayLike<number>): TensorProto {
  return create(TensorProtoSchema, {
    name: value.name,
    dataType: dataTypes[value.type],
    dims: value.shape.map((dimension) => BigInt(dimension)),
    rawData: rawData(value.type, values),
  });
}

function valueInfo({ name, type, shape }: Value): ValueInfoProto {
  const dim = shape.map((dimension) => ({
    value:
      typeof dimension === "number"
        ? { case: "dimValue" as const, value: BigInt(dimension) }
        : { case: "dimParam" as const, value: dimension },
  }));
  const tensorType = { elemType: dataTypes[type], shape: { dim } };
  return create(ValueInfoProtoSchema, { name, type: { value: { case: "tensorType", value: tensorType } } });
}

function nodeProto(
  operator: string,
  inputs: readonly (Value | undefined)[],
  outputs: readonly Value[],
  attributes: Attributes,
): NodeProto {
  return create(NodeProtoSchema, {
    name: outputs[0]?.name ?? operator,
    opType: operator,
    input: inputs.map((input) => input?.name ?? ""),
    output: outputs.map((output) => output.name),
    attribute: Object.entries(attributes).map(([name, value]) => attributeProto(name, value)),
  });
}

function attributeProto(name: string, value: Attributes[string]): AttributeProto {
  const type = AttributeProto_AttributeType;
  if (typeof value === "number") return create(AttributeProtoSchema, { name, type: type.INT, i: BigInt(value) });
  if (typeof value === "string") {
    return create(AttributeProtoSchema, { name, type: type.STRING, s: new TextEncoder().encode(value) });
  }
  if ("float" in value) return create(AttributeProtoSchema, { name, type: type.FLOAT, f: value.float });
  return create(AttributeProtoSchema, { name, type: type.INTS, ints: value.map(BigInt) });
}
