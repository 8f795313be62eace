/** The forms in which images are sent and probabilities come back. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  GRPCInferenceService,
  ModelInferRequestSchema,
  type ModelInferResponse,
  ModelInferResponseSchema,
} from "../../gen/inference/open_inference_pb.ts";
import { PredictionService, PredictRequestSchema, PredictResponseSchema } from "../../gen/millrace/v1/prediction_pb.ts";
import type { SampleImage } from "./images.ts";
import type { Target } from "./load.ts";
import { classes, shape } from "./model.ts";

export interface Wire {
  /** What is sent: the same images in different forms. */
  readonly input: "tensors" | "JPEGs" | "JSON";
  readonly protocol: Target["protocol"];
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly request: (image: SampleImage) => Uint8Array;
  /** The probabilities of an answer, in the order of the classes. */
  readonly probabilities: (answer: Uint8Array) => readonly number[];
}

export function targetOf(wire: Wire, address: string, images: readonly SampleImage[]): Target {
  const { protocol, path, headers, request } = wire;
  return { protocol, url: `http://${address}${path}`, headers, bodies: images.map(request) };
}

const predictPath = `/${PredictionService.typeName}/${PredictionService.method.predict.name}`;

const predict = {
  input: "JPEGs",
  path: predictPath,
  request: ({ jpeg }: SampleImage) =>
    toBinary(PredictRequestSchema, create(PredictRequestSchema, { input: { case: "image", value: jpeg } })),
  probabilities: (answer: Uint8Array) => {
    const { predictions } = fromBinary(PredictResponseSchema, answer);
    return predictions.toSorted((a, b) => a.classIndex - b.classIndex).map(({ probability }) => probability);
  },
} as const;

/** JPEG by Millrace's own API, over gRPC. */
export const predictGrpc: Wire = { ...predict, protocol: "grpc", headers: {} };

/** The same over HTTP/1.1, in Connect's binary form. */
export const predictConnect: Wire = {
  ...predict,
  protocol: "http",
  headers: { "content-type": "application/proto", "connect-protocol-version": "1" },
};

const tensorShape = [1, shape.channels, shape.height, shape.width];

/** Raw pixels by the Open Inference Protocol over gRPC. */
export function inferGrpc(modelName: string): Wire {
  const input = { name: "pixels", datatype: "UINT8", shape: tensorShape.map(BigInt) };
  const outputs = [{ name: "probabilities" }];
  return {
    input: "tensors",
    protocol: "grpc",
    path: `/${GRPCInferenceService.typeName}/${GRPCInferenceService.method.modelInfer.name}`,
    headers: {},
    request: ({ pixels }) =>
      toBinary(
        ModelInferRequestSchema,
        create(ModelInferRequestSchema, { modelName, inputs: [input], outputs, rawInputContents: [pixels] }),
      ),
    probabilities: (answer) => firstOutput(fromBinary(ModelInferResponseSchema, answer)),
  };
}

function firstOutput({ rawOutputContents: [raw], outputs: [output] }: ModelInferResponse): readonly number[] {
  return raw === undefined ? (output?.contents?.fp32Contents ?? []) : floats(raw);
}

function floats(bytes: Uint8Array): number[] {
  return [...new Float32Array(Uint8Array.from(bytes).buffer)];
}

const jsonLengthHeader = "inference-header-content-length";

/** Raw pixels by the Open Inference Protocol over HTTP/1.1, with tensors in binary both ways. */
export function inferRest(modelName: string): Wire {
  const parameters = { binary_data_size: tensorShape.reduce((product, length) => product * length) };
  const json = Buffer.from(
    JSON.stringify({
      inputs: [{ name: "pixels", datatype: "UINT8", shape: tensorShape, parameters }],
      outputs: [{ name: "probabilities", parameters: { binary_data: true } }],
    }),
  );
  return {
    input: "tensors",
    protocol: "http",
    path: `/v2/models/${modelName}/infer`,
    headers: { "content-type": "application/octet-stream", [jsonLengthHeader]: String(json.length) },
    request: ({ pixels }) => Buffer.concat([json, pixels]),
    // Only one output was asked for, and it lies at the end.
    probabilities: (answer) => floats(answer.subarray(answer.length - 4 * classes.length)),
  };
}

/** A JPEG file as the body of a request; a list of probabilities in JSON as the answer. */
export const postJpeg: Wire = {
  input: "JPEGs",
  protocol: "http",
  path: "/predict",
  headers: { "content-type": "image/jpeg" },
  request: ({ jpeg }) => jpeg,
  probabilities: (answer) => JSON.parse(Buffer.from(answer).toString()) as number[],
};

/** Pixels in JSON, row by row, as the paper's prototype takes them. */
export const postPixels: Wire = {
  ...postJpeg,
  input: "JSON",
  headers: { "content-type": "application/json" },
  request: ({ pixels }) => Buffer.from(JSON.stringify(rowsOf(pixels))),
};

/** [H, W, C] of [C, H, W]. */
function rowsOf(pixels: Uint8Array): number[][][] {
  const { height, width, channels } = shape;
  const range = (length: number) => Array.from({ length }, (_, index) => index);
  return range(height).map((y) =>
    range(width).map((x) => range(channels).map((channel) => pixels[(channel * height + y) * width + x] ?? 0)),
  );
}
