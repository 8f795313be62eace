/** What requests and answers of the Open Inference Protocol hold over HTTP: JSON, and tensors in binary behind it. */
import { z } from "zod";
import { AppError } from "../../../lib/errors.ts";
import { maxTimeoutMicros } from "./inference.ts";
import { jsonLengthHeader } from "./request-body.ts";
import { badInput, checkedTensor, rawFromTensor, type Tensor, tensorFromRaw, unsupported } from "./tensor.ts";

/** An answer before it is sent. */
export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | string;
}

/** What need not be there may be null as well: clients that are made from a schema send all of its members. */
function optional<Schema extends z.ZodType>(schema: Schema) {
  return schema
    .nullish()
    .transform((value) => value ?? undefined)
    .optional();
}

function withDefault<Schema extends z.ZodType>(schema: Schema, value: z.output<Schema>) {
  return schema.nullish().transform((given) => given ?? value);
}

const parameters = withDefault(
  z.looseObject({
    binary_data_size: optional(z.number().int().min(0)),
    binary_data: optional(z.boolean()),
    binary_data_output: optional(z.boolean()),
    routing_key: optional(z.union([z.string(), z.number()])),
    /** Triton's level; see {@link InferRequest.priority}. */
    priority: optional(z.number().int().min(0)),
    /** Microseconds, as Triton's clients send it. */
    timeout: optional(z.number().positive().max(maxTimeoutMicros)),
  }),
  {},
);

export const requestSchema = z.object({
  id: optional(z.string()),
  parameters,
  inputs: z.array(
    z.object({
      name: z.string(),
      datatype: z.string(),
      shape: z.array(z.number()),
      parameters,
      data: z.unknown().optional(),
    }),
  ),
  outputs: withDefault(z.array(z.object({ name: z.string(), parameters })), []),
});

type JsonInput = z.output<typeof requestSchema>["inputs"][number];

export const repositorySchema = z.object({
  ready: withDefault(z.boolean(), false),
  parameters: withDefault(z.record(z.string(), z.unknown()), {}),
});

export function parse<Schema extends z.ZodType>(json: Buffer, schema: Schema): z.output<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(json.toString("utf8"));
  } catch (cause) {
    throw new AppError("INVALID_REQUEST", "the request is no JSON", { cause });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new AppError("INVALID_REQUEST", `${issue?.path.join(".") || "the request"}: ${issue?.message}`);
}

/** Inputs in their order; the binary ones lie one behind the other. */
export function tensorsOf(inputs: readonly JsonInput[], binary: Buffer): Tensor[] {
  let at = 0;
  const tensors = inputs.map((input) => {
    const size = input.parameters.binary_data_size;
    if (size === undefined) return tensorFromJson(input);
    at += size;
    if (at > binary.length) throw badInput(input.name, `has ${size} bytes in binary, but the request ends before them`);
    return tensorFromRaw(input, binary.subarray(at - size, at));
  });
  if (at === binary.length) return tensors;
  throw new AppError(
    "INVALID_REQUEST",
    `the request has ${binary.length - at} bytes in binary that belong to no input`,
  );
}

/** More than any input has. What is nested deeper stays nested, and is no element. */
const maxDimensions = 8;

/** Numbers may be nested as the shape is; BYTES are text in base64, since JSON has nothing for bytes. */
function tensorFromJson({ name, datatype, shape, data }: JsonInput): Tensor {
  const elements = Array.isArray(data) ? data.flat(Math.min(shape.length, maxDimensions)) : [];
  const wrong = (kind: string) => badInput(name, `has data other than ${kind}`);
  switch (datatype) {
    case "UINT8":
      if (!elements.every((value) => Number.isInteger(value) && value >= 0 && value <= 255))
        throw wrong("whole numbers from 0 to 255");
      return checkedTensor({ name, shape, datatype, data: Uint8Array.from(elements) });
    case "FP32":
      if (!elements.every((value) => typeof value === "number")) throw wrong("numbers");
      return checkedTensor({ name, shape, datatype, data: Float32Array.from(elements) });
    case "BYTES":
      if (!elements.every((value) => typeof value === "string")) throw wrong("text in base64");
      return checkedTensor({ name, shape, datatype, data: elements.map((text) => Buffer.from(text, "base64")) });
    default:
      throw unsupported(name, datatype);
  }
}

export function tensorReply(
  head: object,
  { outputs, isBinary }: { outputs: readonly Tensor[]; isBinary: (output: Tensor) => boolean },
): Reply {
  const binary: Uint8Array[] = [];
  const described = outputs.map((output) => {
    const { name, datatype, shape } = output;
    if (!isBinary(output)) return { name, datatype, shape, data: jsonData(output) };
    const raw = rawFromTensor(output);
    binary.push(raw);
    return { name, datatype, shape, parameters: { binary_data_size: raw.length } };
  });
  const answered = { ...head, outputs: described };
  if (binary.length === 0) return jsonReply(200, answered);
  const json = Buffer.from(JSON.stringify(answered));
  const headers = { "content-type": "application/octet-stream", [jsonLengthHeader]: String(json.length) };
  return { status: 200, headers, body: Buffer.concat([json, ...binary]) };
}

function jsonData({ datatype, data }: Tensor): unknown[] {
  return datatype === "BYTES" ? data.map((bytes) => Buffer.from(bytes).toString("utf8")) : Array.from(data);
}

export function jsonReply(status: number, value: object): Reply {
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(value) };
}
