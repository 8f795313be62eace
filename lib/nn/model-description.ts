/** What an inference model says about itself, in the `metadata_props` of its ONNX file. */
import { fromBinary } from "@bufbuild/protobuf";
import { z } from "zod";
import { ModelProtoSchema } from "../../gen/onnx/onnx_pb.ts";
import { AppError } from "../errors.ts";

export interface ModelDescription {
  /** Name of the network. */
  readonly network: string;
  /** Names of the classes, in the order of the probabilities. */
  readonly classes: readonly string[];
  /** What the model takes: uint8 pixels [N, channels, height, width]; it normalises them itself by these numbers. */
  readonly input: {
    readonly channels: number;
    readonly height: number;
    readonly width: number;
    readonly mean: readonly number[];
    readonly standardDeviation: readonly number[];
  };
  readonly parameterCount: number;
  /** Of the network; a mirrored model does twice as much. */
  readonly forwardFlopsPerImage: number;
  /** Whether the model looks at each image's mirror image as well. */
  readonly mirrored: boolean;
}

const key = "millrace.description";

const size = z.number().int().positive();
const descriptionSchema = z.object({
  network: z.string(),
  classes: z.array(z.string()).min(2),
  input: z.object({
    channels: size,
    height: size,
    width: size,
    mean: z.array(z.number()),
    standardDeviation: z.array(z.number()),
  }),
  parameterCount: z.number(),
  forwardFlopsPerImage: z.number(),
  // Absent in models of earlier versions.
  mirrored: z.boolean().default(false),
});

/** The metadata that `describeModel` reads. */
export function metadataFromDescription(description: ModelDescription): Record<string, string> {
  return { [key]: JSON.stringify(description) };
}

/** Reads a model's description without loading it. Throws ARTIFACT_CORRUPT for bytes that are no model of ours. */
export function describeModel(onnx: Uint8Array): ModelDescription {
  try {
    const { metadataProps } = fromBinary(ModelProtoSchema, onnx);
    const text = metadataProps.find((entry) => entry.key === key)?.value;
    return descriptionSchema.parse(JSON.parse(text ?? "null"));
  } catch (thrown) {
    throw new AppError("ARTIFACT_CORRUPT", "these bytes are no ONNX model that Millrace has trained", {
      cause: thrown,
    });
  }
}
