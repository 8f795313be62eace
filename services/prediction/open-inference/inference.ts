/**
 * What the Open Inference Protocol asks of the model that is live. gRPC (`routes.ts`) and REST (`rest.ts`) are thin layers over this.
 *
 * A model takes one of two inputs: `image`, encoded images as BYTES [n], or `pixels`, UINT8 or FP32 [n, C, H, W] with values from 0 to
 * 255. It gives `probabilities`, FP32 [n, classes], and `label`, the name of the most probable class, BYTES [n].
 */
import { joinSignals, orAborted } from "../../../lib/abort.ts";
import { AppError } from "../../../lib/errors.ts";
import { championAlias, requireVersion } from "../../../lib/registry/model-log.ts";
import { version as serverVersion } from "../../../lib/version.ts";
import {
  type Answer,
  type AnsweringDependencies,
  type AnsweringModel,
  type Caller,
  CallRequest,
  choose,
  decodeFor,
  withModel,
} from "../answering.ts";
import type { Batched, Prepare } from "../batcher.ts";
import type { Deployment } from "../deployment.ts";
import type { Priority } from "../priority-queue.ts";
import type { LoadedModel } from "../serving.ts";
import { mostProbable } from "../shadow.ts";
import { createRepository, type Repository } from "./repository.ts";
import { requireName, selectorOf } from "./selection.ts";
import { badInput, bytesIn, countImages, type Tensor, type TensorHeader, unsupported } from "./tensor.ts";

/** The most that the parameter timeout may say: a day. */
export const maxTimeoutMicros = 86_400_000_000;

const outputNames: readonly string[] = ["probabilities", "label"];

export interface InferRequest {
  readonly modelName: string;
  /** Number of a version, or an alias; empty for the champion, or for a share of the requests the canary. */
  readonly modelVersion: string;
  readonly inputs: readonly Tensor[];
  /** Names of the outputs wanted; none means all. */
  readonly outputs: readonly string[];
  /** Requests of one key go to the same version; empty leaves it to chance. */
  readonly routingKey: string;
  /** Triton's level, whose highest is 1: that is our high, from 3 on it is low. Default: 0, which is normal, as 2 is. */
  readonly priority?: number | undefined;
  /** After which DEADLINE_EXCEEDED is the answer, in ms, if the caller has not gone before. Default: as long as the caller waits. */
  readonly timeoutMs?: number | undefined;
}

export interface InferResult {
  readonly modelName: string;
  readonly modelVersion: string;
  readonly outputs: readonly Tensor[];
  /** What SendFeedback takes, for each image, with commas between them: as a parameter, since the protocol has no field for it. */
  readonly predictionIds: string;
}

export interface ModelMetadata {
  readonly name: string;
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly TensorHeader[];
  readonly outputs: readonly TensorHeader[];
  readonly properties: Readonly<Record<string, string>>;
}

export const serverMetadata = {
  name: "millrace",
  version: serverVersion,
  extensions: ["binary_tensor_data", "model_repository", "schedule_policy"],
} as const;

export interface OpenInferenceDependencies extends AnsweringDependencies {
  /** What the process's health says. */
  readonly isServing: () => boolean;
}

/** A model by its name and the number of a version or an alias; the champion if that is empty. MODEL_NOT_FOUND if there is none such. */
export interface OpenInference {
  /** Whether the process serves, and there is a champion. */
  ready(): boolean;
  /** Whether this version is in memory. */
  modelReady(name: string, version: string): boolean;
  /** What the version takes and gives; it is loaded if need be. */
  metadata(name: string, version: string): Promise<ModelMetadata>;
  /**
   * Runs the version, which is loaded if need be. INVALID_REQUEST and the errors of images name what is wrong with which input; one bad image
   * fails the request. QUEUE_FULL if it would have to wait for too long.
   */
  infer(request: InferRequest, caller: Caller): Promise<InferResult>;
  readonly repository: Repository;
}

export function createOpenInference(dependencies: OpenInferenceDependencies): OpenInference {
  const { deployment, isServing } = dependencies;
  const checkName = (name: string): void => requireName(deployment, name);
  return {
    ready: () => isServing() && deployment.live(championAlias) !== undefined,
    modelReady: (name, version) => {
      checkName(name);
      if (version === "" || version === championAlias) return deployment.live(championAlias) !== undefined;
      return deployment.models.state(requireVersion(deployment.log, selectorOf(version))).kind === "ready";
    },
    metadata: async (name, version) => {
      checkName(name);
      using held = await choose(dependencies, { selector: selectorOf(version || championAlias) });
      return describe(held.model, deployment);
    },
    infer: (request, anyCaller) =>
      inTime(request, anyCaller, async (caller) => {
        const { modelName, modelVersion, inputs, outputs, routingKey, priority = 0 } = request;
        checkName(modelName);
        requireOutputs(outputs);
        const input = onlyInput(inputs);
        const count = countImages(input);
        const selector = modelVersion === "" ? undefined : selectorOf(modelVersion);
        const admitted = { priority: priorityOf(priority), count, sizeBytes: bytesIn(input) };
        const asked = new CallRequest(caller, { selector, routingKey, ...admitted });
        return withModel(dependencies, asked, async (model) => {
          const classified = await classifyAll(model, input);
          return {
            modelName,
            modelVersion: String(model.version.version),
            outputs: wantedOutputs(outputs, outputTensors(classified, model.manifest.classes)),
            predictionIds: classified.map(({ output }) => output.predictionId).join(),
          };
        });
      }),
    repository: createRepository(deployment),
  };
}

function describe({ version, manifest }: LoadedModel, { log }: Pick<Deployment, "log">): ModelMetadata {
  const { channels = 0, height = 0, width = 0 } = manifest.input ?? {};
  return {
    name: version.name,
    versions: [...log.versions.keys()].map(String),
    platform: "onnxruntime_onnx",
    inputs: [
      { name: "image", datatype: "BYTES", shape: [-1] },
      { name: "pixels", datatype: "UINT8", shape: [-1, channels, height, width] },
    ],
    outputs: [
      { name: "probabilities", datatype: "FP32", shape: [-1, manifest.classes.length] },
      { name: "label", datatype: "BYTES", shape: [-1] },
    ],
    properties: {
      digest: version.digest,
      dataset_digest: version.lineage?.datasetDigest ?? "",
      run_id: version.lineage?.runId ?? "",
      // As JSON: a class may be called "cat, tabby".
      classes: JSON.stringify(manifest.classes),
    },
  };
}

function priorityOf(level: number): Priority {
  if (level === 1) return "high";
  return level >= 3 ? "low" : "normal";
}

/** The one input that a request must have. */
function onlyInput(inputs: readonly Tensor[]): Tensor {
  const [input] = inputs;
  if (input === undefined || inputs.length > 1) {
    const text = `the request has ${inputs.length} inputs; it must have one, "image" or "pixels"`;
    throw new AppError("INVALID_REQUEST", text, { details: { field: "inputs" } });
  }
  // Each element is an image: what is nested would hold more of them than it is long.
  if (input.datatype === "BYTES" && input.shape.length !== 1) {
    throw badInput(input.name, `must have the shape [n], not [${input.shape.join(", ")}]`);
  }
  return input;
}

/** Works for a caller who waits no longer than the request says. */
async function inTime<T>(
  { modelName, timeoutMs }: InferRequest,
  caller: Caller,
  work: (caller: Caller) => Promise<T>,
): Promise<T> {
  if (timeoutMs === undefined) return work(caller);
  const late = `the inference of ${modelName} was not done in ${timeoutMs} ms; allow it more by the parameter timeout, in microseconds`;
  const expired = new AbortController();
  const timer = setTimeout(() => expired.abort(new AppError("DEADLINE_EXCEEDED", late)), timeoutMs);
  using joined = joinSignals(caller.signal, expired.signal);
  const leftMs = Math.min(timeoutMs, caller.timeoutMs?.() ?? timeoutMs);
  const done = work({ signal: joined.signal, timeoutMs: () => leftMs });
  return await orAborted(done, joined.signal).finally(() => clearTimeout(timer));
}

function classifyAll(model: AnsweringModel, input: Tensor): Promise<Batched<Answer>[]> {
  return Promise.all(decodersOf(model, input).map((decode) => model.classify(decode)));
}

/** How to come to the pixels of each image. */
function decodersOf(model: AnsweringModel, input: Tensor): Prepare<Uint8Array>[] {
  const { name, datatype } = input;
  if (name === "image") {
    if (datatype !== "BYTES") throw badInput(name, `must be of datatype BYTES, not ${datatype}`);
    return input.data.map((image, index) => {
      return () => decodeFor(model, image, { field: "inputs", name: `image ${index} of input "image"` });
    });
  }
  if (name !== "pixels") throw badInput(name, `is none of the model's, which are "image" and "pixels"`);
  if (datatype === "BYTES") throw unsupported(name, datatype);
  const pixels = bytesOf(input);
  const { channels = 0, height = 0, width = 0 } = model.manifest.input ?? {};
  const [n = 0, ...shape] = input.shape;
  if (shape.join() !== [channels, height, width].join()) {
    throw badInput(name, `must have the shape [n, ${channels}, ${height}, ${width}], not [${input.shape.join(", ")}]`);
  }
  const length = channels * height * width;
  return Array.from({ length: n }, (_, index) => () => pixels.subarray(index * length, (index + 1) * length));
}

/** Networks are trained on bytes: a float is rounded to the nearest. */
function bytesOf({ name, datatype, data }: Exclude<Tensor, { datatype: "BYTES" }>): Uint8Array {
  if (datatype === "UINT8") return data;
  const wrong = data.findIndex((value) => !(value >= 0 && value <= 255));
  if (wrong >= 0) throw badInput(name, `has ${data[wrong]} as element ${wrong}; pixels are from 0 to 255`);
  return Uint8Array.from(data, Math.round);
}

function outputTensors(classified: readonly Batched<Answer>[], classes: readonly string[]): readonly Tensor[] {
  const probabilities = classified.map(({ output }) => output.probabilities);
  const all = new Float32Array(probabilities.length * classes.length);
  for (const [index, row] of probabilities.entries()) all.set(row, index * classes.length);
  const labels = probabilities.map((row) => Buffer.from(classes[mostProbable(row)] ?? ""));
  return [
    { name: "probabilities", datatype: "FP32", shape: [probabilities.length, classes.length], data: all },
    { name: "label", datatype: "BYTES", shape: [probabilities.length], data: labels },
  ];
}

/** Before anything is classified. */
function requireOutputs(names: readonly string[]): void {
  const unknown = names.find((name) => !outputNames.includes(name));
  if (unknown === undefined) return;
  const text = `the model has no output "${unknown}", only ${outputNames.map((name) => `"${name}"`).join(" and ")}`;
  throw new AppError("INVALID_REQUEST", text, { details: { field: "outputs" } });
}

function wantedOutputs(names: readonly string[], outputs: readonly Tensor[]): readonly Tensor[] {
  if (names.length === 0) return outputs;
  return names.flatMap((name) => outputs.find((output) => output.name === name) ?? []);
}
