/** The native backend of TensorFlow.js: an optional package with a native library that npm alone does not bring. */
import { createRequire } from "node:module";
import path from "node:path";
import { AppError } from "../../errors.ts";
import { core } from "../tensorflow.ts";

/** Where the `tensorflow` engine's operations run. */
export interface TensorBackend {
  /** Version of the library that does the work. */
  readonly version: string;
  /** Throws ENGINE_UNAVAILABLE, saying what to do, where the backend cannot run. */
  check(): void;
  /** Makes it the backend of every TensorFlow.js operation of this thread. */
  load(): Promise<void>;
}

/** The native interfaces that tfjs-node 4 is built for; it takes the latest that Node has. */
const latestNapi = 8;
/** The first major version of Node without `util.isNullOrUndefined` and `util.isArray`, which tfjs-node calls. */
const firstUnfitNode = 23;
const fetching = "`npm rebuild @tensorflow/tfjs-node --ignore-scripts=false`, which needs the internet";

/** `@tensorflow/tfjs-node` as a module at `from` finds it, in this version of Node. Nothing of it is loaded before `check` or `load`. */
export function nativeBackend(from: string = import.meta.url, node: string = process.versions.node): TensorBackend {
  const require = createRequire(from);
  const check = (): void => {
    checkNode(node);
    // Loading it is the only sure test: an addon that is there may still lack libtensorflow.
    requireAddon(require);
  };
  return {
    get version() {
      const { TF_Version: library } = requireAddon(require) as { readonly TF_Version: string };
      return `${core.version_core} (libtensorflow ${library})`;
    },
    check,
    async load() {
      check();
      require("@tensorflow/tfjs-node");
      await core.setBackend("tensorflow");
    },
  };
}

/** Throws ENGINE_UNAVAILABLE for a version of Node that tfjs-node does not work with. */
export function checkNode(version: string): void {
  if (Number.parseInt(version, 10) < firstUnfitNode) return;
  throw unavailable(
    `@tensorflow/tfjs-node does not work with Node ${version}: it calls functions that Node ${firstUnfitNode} removed; use Node 20 or 22`,
  );
}

function requireAddon(require: NodeJS.Require): unknown {
  const folder = path.dirname(packageFile(require));
  try {
    const napi = Math.min(latestNapi, Number(process.versions.napi));
    return require(path.join(folder, "lib", `napi-v${napi}`, "tfjs_binding.node"));
  } catch (thrown) {
    throw unavailable(
      `the native library of @tensorflow/tfjs-node is missing or does not load; fetch it with ${fetching}`,
      thrown,
    );
  }
}

function packageFile(require: NodeJS.Require): string {
  try {
    return require.resolve("@tensorflow/tfjs-node/package.json");
  } catch (thrown) {
    throw unavailable(
      "@tensorflow/tfjs-node is not installed; install it first: `npm install --include=optional`, " +
        `then fetch its native library with ${fetching}`,
      thrown,
    );
  }
}

function unavailable(reason: string, cause?: unknown): AppError {
  const message = `the tensorflow engine is not available: ${reason}, or unset MILLRACE_ENGINE to train with onnxruntime`;
  return new AppError("ENGINE_UNAVAILABLE", message, { details: { engine: "tensorflow" }, cause });
}
