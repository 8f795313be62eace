/** The prediction service as it is run: a process of its own, a broker, and a registry whose champion it follows. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { create, toJsonString } from "@bufbuild/protobuf";
import { parse } from "yaml";
import { LineageSchema, ModelManifestSchema } from "../../gen/millrace/v1/model_pb.ts";
import { openFolderStore } from "../../lib/artifacts/folder-store.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { openBus } from "../../lib/bus/bus.ts";
import { createLogger } from "../../lib/log.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { createRegistry, type NewVersion } from "../../lib/registry/registry.ts";
import { typeScriptOptions } from "../../lib/type-script.ts";
import type { SampleImage } from "./images.ts";
import { classes, type ServedModel, shape } from "./model.ts";
import { type Launched, launch, type RunningServer, untilAnswered } from "./servers.ts";
import { inferGrpc, targetOf } from "./wires.ts";

export const modelName = "bench";

/** Longest expected wait with which services are started: a closed load is measured by what is answered, so nothing of it is refused. */
export const patientMaxWaitMs = 60_000;

const pollMs = 5;
const root = join(import.meta.dirname, "../..");
const compose = parse(readFileSync(join(root, "deploy/compose.yaml"), "utf8"), { merge: true }) as {
  readonly services: { readonly prediction: { readonly command: readonly string[] } };
};

/** Options of Node with which deploy/compose.yaml starts the service: what stands between `node` and the program. */
export const heapOptions: readonly string[] = compose.services.prediction.command.slice(1, -1);
const deployedOptions = [...typeScriptOptions, ...heapOptions];

/** A broker and a registry with versions of one model, numbered from 1, of which the first is champion. */
export interface Hub extends AsyncDisposable {
  /** Makes a version champion. */
  promote(version: number): Promise<void>;
  /**
   * Starts a prediction service, with these variables besides those of this process, and waits for its first answer. `nodeOptions` are by default those
   * with which it is deployed.
   */
  startService(env?: NodeJS.ProcessEnv, nodeOptions?: readonly string[]): Promise<RunningServer>;
}

export interface HubOptions {
  /** Folder for the files of broker and registry. */
  readonly home: string;
  readonly versions: readonly ServedModel[];
  /** A service is asked with these until it answers. */
  readonly images: readonly SampleImage[];
}

export async function openHub({ home, versions, images }: HubOptions): Promise<Hub> {
  const artifactFolder = join(home, "artifacts");
  const binary = await findNatsServer({ env: process.env, onProgress: (line) => console.error(line) });
  const nats = await launchNatsServer({ binary, storeFolder: join(home, "nats") });
  const logger = createLogger({ service: "bench", level: "warn" });
  const bus = await openBus({ url: nats.url, service: "bench", logger });
  const registry = createRegistry(bus);
  let changes = 0;
  const origin = () => ({ runId: "", cause: { id: `change-${++changes}`, originTraceparent: "" } });
  const promote = async (version: number): Promise<void> => {
    await registry.moveAlias({ modelName, version, reason: "measured" }, origin());
  };
  await using artifacts = await openFolderStore(artifactFolder);
  for (const model of versions) await registry.register(await storeVersion(artifacts, model), origin());
  await promote(1);
  return {
    promote,
    startService: (env = {}, nodeOptions = deployedOptions) => {
      const hub = { MILLRACE_NATS_URL: nats.url, MILLRACE_ARTIFACTS: `file:${artifactFolder}` };
      return startService({ env: { ...hub, ...env }, nodeOptions }, images);
    },
    [Symbol.asyncDispose]: async () => {
      await bus[Symbol.asyncDispose]();
      await nats.stop();
    },
  };
}

async function storeVersion(artifacts: ArtifactStore, model: ServedModel): Promise<NewVersion> {
  const onnx = await artifacts.put(model.onnx, { mediaType: "application/vnd.onnx", name: "model.onnx" });
  const json = toJsonString(ModelManifestSchema, create(ModelManifestSchema, { input: shape, classes, onnx }));
  const manifest = await artifacts.put(Buffer.from(json), { mediaType: "application/json", name: "model.json" });
  return { name: modelName, digest: manifest.digest, manifest, lineage: create(LineageSchema) };
}

interface Start {
  readonly env: NodeJS.ProcessEnv;
  readonly nodeOptions: readonly string[];
}

async function startService({ env, nodeOptions }: Start, images: readonly SampleImage[]): Promise<RunningServer> {
  const launched = launch({
    command: process.execPath,
    args: [...nodeOptions, join(root, "services/prediction/main.ts")],
    cwd: root,
    env: {
      ...process.env,
      // The same as npm start sets.
      UV_THREADPOOL_SIZE: String(Math.max(4, availableParallelism())),
      MILLRACE_PREDICTION_PORT: "0",
      MILLRACE_PREDICTION_MODEL_NAME: modelName,
      MILLRACE_PREDICTION_MAX_WAIT_MS: String(patientMaxWaitMs),
      ...env,
    },
  });
  try {
    const address = await Promise.race([announcedAddress(launched), launched.ended]);
    const startUpMs = await untilAnswered(launched, targetOf(inferGrpc(modelName), address, images));
    const { pid = 0 } = launched.child;
    return { address, pid, startUpMs, [Symbol.asyncDispose]: () => launched[Symbol.asyncDispose]() };
  } catch (thrown) {
    await launched[Symbol.asyncDispose]();
    throw thrown;
  }
}

/** The port it took stands in its log. */
async function announcedAddress({ output, child }: Launched): Promise<string> {
  while (child.exitCode === null) {
    const address = /"url":"http:\/\/([^"/]+)/.exec(output())?.[1];
    if (address !== undefined) return address;
    await delay(pollMs);
  }
  throw new Error("the prediction service ended before it was ready");
}
