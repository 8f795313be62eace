/** The models in memory: those that an alias names, and beside them those used last, as far as they fit into a budget. */
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { AppError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { versionName } from "../../lib/registry/model-log.ts";
import type { LoadedModel } from "./serving.ts";

export interface ModelCacheOptions {
  /** Loads a version; `admit` is to be called with its memory in bytes before it takes it. */
  readonly load: (version: ModelVersion, admit: (bytes: number) => void) => Promise<LoadedModel>;
  /** Most bytes of all models that are held for requests, or by nobody. Those that are always held do not count. */
  readonly budgetBytes: number;
  readonly logger: Logger;
  /** Called after a model was loaded, could not be, was unloaded, or has died. */
  readonly onChange?: () => void;
}

/** A model that stays in memory until this is disposed of. */
export interface HeldModel extends Disposable {
  readonly model: LoadedModel;
}

export interface HoldOptions {
  /** Loads it whatever the budget says, for a version that an alias names. Default false. */
  readonly always?: boolean;
}

export type ModelState =
  | { readonly kind: "unloaded" }
  | { readonly kind: "loading" }
  | { readonly kind: "ready"; readonly model: LoadedModel }
  | { readonly kind: "failed"; readonly error: AppError };

export interface ModelCache extends AsyncDisposable {
  /**
   * The version in memory for as long as it is held: at once if it is there, as for nearly every request, otherwise when it has been loaded.
   * Rejects with what loading threw, or with MODEL_MEMORY_FULL.
   */
  hold(version: ModelVersion, options?: HoldOptions): Promise<HeldModel> | HeldModel;
  state(version: ModelVersion): ModelState;
  /** Those in memory. */
  readonly loaded: readonly LoadedModel[];
  /** Unloads a version that nobody holds; false if somebody does. */
  unload(version: ModelVersion): boolean;
}

interface Entry {
  readonly version: ModelVersion;
  readonly loading: Promise<LoadedModel>;
  model: LoadedModel | undefined;
  holds: number;
  /** Of the holds, those that the budget does not count. */
  alwaysHolds: number;
  /** Known once it is admitted. */
  bytes: number;
  /** How many holds there had been, of any, when it was held last. */
  lastUse: number;
}

export function createModelCache({ load, budgetBytes, logger, onChange = () => {} }: ModelCacheOptions): ModelCache {
  const entries = new Map<string, Entry>();
  const failures = new Map<string, AppError>();
  let uses = 0;
  let drained = () => {};

  const fits = (bytes: number): boolean => {
    let held = bytes;
    for (const entry of entries.values()) if (entry.alwaysHolds === 0) held += entry.bytes;
    return held <= budgetBytes;
  };

  function remove(entry: Entry): void {
    const key = keyOf(entry.version);
    if (entries.get(key) === entry) entries.delete(key);
    onChange();
  }

  /** Nobody holds it any more, so nobody waits for its end. */
  function unload(entry: Entry): void {
    remove(entry);
    const { model } = entry;
    void dispose(model).catch((error: unknown) => {
      logger.warn({ event: "model.unload_failed", error }, `${versionName(entry.version)} could not be unloaded`);
    });
  }

  /** Unloads those that were not used for longest until this much room is left. */
  function makeRoom(bytes: number): void {
    if (fits(bytes)) return;
    for (const entry of [...entries.values()].sort((a, b) => a.lastUse - b.lastUse)) {
      if (entry.holds === 0) unload(entry);
      if (fits(bytes)) return;
    }
  }

  function admit(entry: Entry, bytes: number): void {
    if (entry.alwaysHolds === 0) {
      makeRoom(bytes);
      if (!fits(bytes)) throw memoryFull(entry.version, bytes, budgetBytes);
    }
    entry.bytes = bytes;
  }

  function begin(version: ModelVersion): Entry {
    const loading = Promise.resolve().then(() => load(version, (bytes) => admit(entry, bytes)));
    const entry: Entry = { version, loading, model: undefined, holds: 0, alwaysHolds: 0, bytes: 0, lastUse: 0 };
    loading.then(
      (model) => {
        entry.model = model;
        failures.delete(keyOf(version));
        void model.lost.then(() => remove(entry));
        onChange();
      },
      (thrown: unknown) => {
        failures.set(keyOf(version), AppError.from(thrown));
        remove(entry);
      },
    );
    return entry;
  }

  function release(entry: Entry, always: boolean): void {
    entry.holds--;
    if (always) entry.alwaysHolds--;
    if (entry.holds > 0) return;
    makeRoom(0);
    drained();
  }

  return {
    hold(version, { always = false } = {}) {
      const key = keyOf(version);
      const known = entries.get(key);
      const entry = known ?? begin(version);
      if (known === undefined) entries.set(key, entry);
      entry.lastUse = ++uses;
      entry.holds++;
      if (always) entry.alwaysHolds++;
      let held = true;
      const letGo = () => {
        if (held) release(entry, always);
        held = false;
      };
      const give = (model: LoadedModel): HeldModel => ({ model, [Symbol.dispose]: letGo });
      if (entry.model !== undefined) return give(entry.model);
      return entry.loading.then(give, (thrown) => {
        letGo();
        throw thrown;
      });
    },
    state(version) {
      const entry = entries.get(keyOf(version));
      if (entry?.model !== undefined) return { kind: "ready", model: entry.model };
      if (entry !== undefined) return { kind: "loading" };
      const error = failures.get(keyOf(version));
      return error === undefined ? { kind: "unloaded" } : { kind: "failed", error };
    },
    get loaded() {
      return [...entries.values()].flatMap(({ model }) => model ?? []);
    },
    unload(version) {
      const entry = entries.get(keyOf(version));
      if (entry === undefined) return true;
      if (entry.holds > 0) return false;
      unload(entry);
      return true;
    },
    async [Symbol.asyncDispose]() {
      const isHeld = () => [...entries.values()].some(({ holds }) => holds > 0);
      while (isHeld()) {
        await new Promise<void>((resolve) => {
          drained = resolve;
        });
      }
      await Promise.all([...entries.values()].map(({ model }) => dispose(model)));
      entries.clear();
    },
  };
}

async function dispose(model: LoadedModel | undefined): Promise<void> {
  await model?.[Symbol.asyncDispose]();
}

/** By number as well: the same training, asked for twice, gives two versions of one digest. */
const keyOf = ({ version, digest }: ModelVersion): string => `${version} ${digest}`;

function memoryFull(version: ModelVersion, bytes: number, budgetBytes: number): AppError {
  const megabytes = (count: number) => Math.ceil(count / 1024 ** 2);
  const text = `${versionName(version)} takes ${megabytes(bytes)} MB, for which there is no room among ${megabytes(budgetBytes)} MB`;
  return new AppError("MODEL_MEMORY_FULL", `${text}; raise MILLRACE_PREDICTION_MODEL_MEMORY_MB or ask again later`, {
    details: { model: version.name, version: String(version.version) },
  });
}
