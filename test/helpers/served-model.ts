/** A small model, untrained and so as quick to make as it is wrong, loaded from a store as the prediction service loads it. */
import { create, toJsonString } from "@bufbuild/protobuf";
import { ModelManifestSchema, type ModelVersion, ModelVersionSchema } from "../../gen/millrace/v1/model_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { createChanges } from "../../lib/changes.ts";
import { createLogger } from "../../lib/log.ts";
import { createInferenceThreads } from "../../lib/nn/inference.ts";
import { buildInferenceModel } from "../../lib/nn/inference-graph.ts";
import { metadataFromDescription } from "../../lib/nn/model-description.ts";
import { findNetwork } from "../../lib/nn/networks.ts";
import { planFromLayersModel } from "../../lib/nn/plan.ts";
import { championAlias, emptyModelLog, type ModelLog } from "../../lib/registry/model-log.ts";
import { createByteBudget } from "../../services/prediction/admission.ts";
import type { AnsweringDependencies } from "../../services/prediction/answering.ts";
import type { BatchSettings } from "../../services/prediction/batch-settings.ts";
import type { Deployment } from "../../services/prediction/deployment.ts";
import { createModelCache, type HeldModel } from "../../services/prediction/model-cache.ts";
import { createPredictionId } from "../../services/prediction/prediction-id.ts";
import { loadModel } from "../../services/prediction/serving.ts";
import { mostProbable } from "../../services/prediction/shadow.ts";

const classes = ["cat", "dog", "fox"];
const shape = { height: 16, width: 16, channels: 3 };
const channels = { channelMeans: [0.5, 0.5, 0.5], channelDeviations: [0.25, 0.25, 0.25] };
const normalization = { mean: [0.5, 0.5, 0.5], standardDeviation: [0.25, 0.25, 0.25] };

export interface ServingOptions {
  readonly batching: BatchSettings;
  /** Versions of the model, each with weights of its own; the first is the champion. Default: 1. */
  readonly versions?: number;
  /** Further aliases and the versions that they name. */
  readonly aliases?: Readonly<Record<string, number>>;
  /** Shares of the aliases that have one. */
  readonly shares?: Readonly<Record<string, number>>;
  /** Memory for versions that no alias names. Default: plenty. */
  readonly cacheBytes?: number;
  /** Memory for images that wait. Default: plenty. */
  readonly waitingBytes?: number;
}

/** What the prediction service answers with, without a registry: its log is given, and nobody keeps what is answered. */
export interface TestServing extends AnsweringDependencies, AsyncDisposable {
  readonly deployment: Omit<Deployment, "ready" | typeof Symbol.asyncDispose> & { batching: BatchSettings };
  /** Takes the model of an alias away, as before its first version is live. */
  withdraw(alias: string): void;
}

export async function startServing(folder: string, options: ServingOptions): Promise<TestServing> {
  const { versions: count = 1, aliases = {}, shares = {}, cacheBytes = 2 ** 40, waitingBytes = 2 ** 40 } = options;
  let { batching } = options;
  const artifacts = await openFolderStore(folder);
  const versions = await Promise.all(
    Array.from({ length: count }, (_, index) => storeModel(artifacts, { version: index + 1 })),
  );
  const log: ModelLog = {
    ...emptyModelLog("test"),
    versions: new Map(versions.map((version) => [version.version, version])),
    aliases: new Map(Object.entries({ [championAlias]: 1, ...aliases })),
    shares: new Map(Object.entries(shares)),
  };
  const threads = createInferenceThreads();
  const load = (version: ModelVersion, admit: (bytes: number) => void) =>
    loadModel(version, { artifacts, threads, batching, admit });
  const changes = createChanges();
  const logger = createLogger({ service: "test", level: "silent" });
  const models = createModelCache({ load, budgetBytes: cacheBytes, logger, onChange: changes.notify });
  const live = new Map<string, HeldModel>();
  for (const [alias, number] of log.aliases) {
    const version = log.versions.get(number);
    if (version !== undefined) live.set(alias, await models.hold(version, { always: true }));
  }
  const withdraw = (alias: string) => {
    live.get(alias)?.[Symbol.dispose]();
    live.delete(alias);
  };
  return {
    deployment: {
      log,
      live: (alias) => live.get(alias)?.model,
      models,
      get batching() {
        return batching;
      },
      set batching(next) {
        for (const model of models.loaded) model.setBatching(next);
        batching = next;
      },
      changes,
    },
    answers: {
      note: ({ version }, _pixels, { probabilities }) =>
        createPredictionId({ version: version.version, classIndex: mostProbable(probabilities) }),
      noteShadow: () => undefined,
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    waitingBytes: createByteBudget(waitingBytes),
    withdraw,
    [Symbol.asyncDispose]: async () => {
      for (const alias of [...live.keys()]) withdraw(alias);
      await models[Symbol.asyncDispose]();
      await threads[Symbol.asyncDispose]();
      await artifacts[Symbol.asyncDispose]();
    },
  };
}

export interface UntrainedModelOptions {
  /** Another seed gives other weights. Default 5. */
  readonly seed?: number;
  /** Default small. */
  readonly network?: string;
}

/** An ONNX file for images of 16x16 in three classes. */
export function buildUntrainedModel({ seed = 5, network = "small" }: UntrainedModelOptions = {}): Uint8Array {
  const plan = planFromLayersModel(findNetwork(network).build({ ...shape, classes: classes.length, seed }));
  const metadata = metadataFromDescription({
    network,
    classes,
    input: { ...shape, ...normalization },
    parameterCount: 1,
    forwardFlopsPerImage: 1,
    mirrored: false,
  });
  return buildInferenceModel(plan, { ...normalization, metadata });
}

/** Puts a model into a store, as a version of "test" with weights of its own. Default: version 1. */
export async function storeModel(artifacts: ArtifactStore, { version = 1 } = {}): Promise<ModelVersion> {
  const model = buildUntrainedModel({ seed: 4 + version });
  const onnx = await artifacts.put(model, { mediaType: "application/vnd.onnx", name: "model.onnx" });
  const json = toJsonString(
    ModelManifestSchema,
    create(ModelManifestSchema, { input: shape, classes, onnx, ...channels }),
  );
  const manifest = await artifacts.put(Buffer.from(json), { mediaType: "application/json", name: "model.json" });
  return create(ModelVersionSchema, { name: "test", version, digest: manifest.digest, manifest });
}
