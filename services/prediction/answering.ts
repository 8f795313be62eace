/** Answering with one of the versions, whichever protocol asks. */
import { context, type Link, type SpanContext, TraceFlags, trace } from "@opentelemetry/api";
import type { ModelManifest, ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import { AppError } from "../../lib/errors.ts";
import { createImageDecoder } from "../../lib/images/decode-image.ts";
import { memoize } from "../../lib/memoize.ts";
import { canaryAlias, championAlias, requireVersion, type VersionSelector } from "../../lib/registry/model-log.ts";
import { recordDecoding } from "../../lib/telemetry/serving-metrics.ts";
import { type SpanSettings, withSpan } from "../../lib/telemetry/spans.ts";
import type { AdmitOptions, ByteBudget } from "./admission.ts";
import type { AnswerLog } from "./answer-log.ts";
import type { Batched, Places, Prepare } from "./batcher.ts";
import type { Deployment } from "./deployment.ts";
import type { HeldModel } from "./model-cache.ts";
import type { Priority } from "./priority-queue.ts";
import { takesCanary } from "./routing.ts";
import type { Classification, LoadedModel } from "./serving.ts";
import { mirror } from "./shadow.ts";

export interface AnsweringDependencies {
  readonly deployment: Pick<Deployment, "log" | "live" | "models" | "batching">;
  readonly answers: AnswerLog;
  /** What requests may hold of memory until they are answered, whichever version answers. */
  readonly waitingBytes: ByteBudget;
}

/** Which version shall answer. */
export interface ModelChoice {
  /** Default: the champion, or for a share of the requests the canary. */
  readonly selector?: VersionSelector | { readonly case: undefined } | undefined;
  /** Requests of one key go the same way; empty by default, which leaves it to chance. */
  readonly routingKey?: string;
}

/** Which version shall answer, how many images, and how soon. */
export interface ModelRequest extends ModelChoice, AdmitOptions {
  /** Of all images of the request. Default 0. */
  readonly sizeBytes?: number;
}

/** Who waits for an answer, such as a handler's context. */
export interface Caller {
  /** Aborts when nobody waits any more. */
  readonly signal: AbortSignal;
  /** Milliseconds until it will, as far as that is known. */
  timeoutMs?(): number | undefined;
}

export interface CallRequestOptions
  extends ModelChoice,
    Pick<ModelRequest, "priority" | "count" | "isPatient" | "sizeBytes"> {}

/** The request of a caller, who is asked for a signal when the request is admitted, no sooner: see {@link AdmitOptions.signal}. */
export class CallRequest implements ModelRequest {
  readonly selector: ModelChoice["selector"];
  readonly routingKey: string;
  readonly priority: Priority;
  readonly count: number;
  readonly isPatient: boolean;
  readonly sizeBytes: number;
  readonly timeoutMs: number;
  readonly #caller: Caller;

  constructor(caller: Caller, options: CallRequestOptions) {
    const { selector, routingKey = "", priority = "normal", count = 1, isPatient = false, sizeBytes = 0 } = options;
    this.selector = selector;
    this.routingKey = routingKey;
    this.priority = priority;
    this.count = count;
    this.isPatient = isPatient;
    this.sizeBytes = sizeBytes;
    this.timeoutMs = caller.timeoutMs?.() ?? Number.POSITIVE_INFINITY;
    this.#caller = caller;
  }

  get signal(): AbortSignal {
    return this.#caller.signal;
  }
}

/** What the network says of one image, and the answer's name. */
export interface Answer extends Classification {
  readonly predictionId: string;
}

/** A version as a call sees it: what it answers is noted, and its images are mirrored to the shadow. */
export interface AnsweringModel {
  readonly version: ModelVersion;
  readonly manifest: ModelManifest;
  /** As {@link LoadedModel.classify}. */
  classify(decode: Prepare<Uint8Array>): Promise<Batched<Answer>>;
}

/**
 * Answers with the version that is chosen, which stays in memory until it has answered; it is loaded if need be. MODEL_NOT_READY before the
 * first champion, MODEL_NOT_FOUND for a version that does not exist, QUEUE_FULL if the images would wait for too long or too many bytes wait.
 */
export async function withModel<T>(
  dependencies: AnsweringDependencies,
  request: ModelRequest,
  answerWith: (model: AnsweringModel) => Promise<T>,
): Promise<T> {
  // Also while a version is loaded, before which nobody has a place.
  using _bytes = dependencies.waitingBytes.hold(request.sizeBytes ?? 0);
  using held = await choose(dependencies, request);
  const { model } = held;
  // Before anything else: a refusal has to cost next to nothing, or refusing is what the server is busy with.
  using places = model.admit(request);
  const isRouted = request.selector?.case === undefined;
  const answering = answeringModel(dependencies, { model, places, isRouted });
  const answer = await withSpan("classify", classifySettings(model), () => answerWith(answering));
  if (model.firstAnswerParent !== undefined) await noteFirstAnswer(model, model.firstAnswerParent);
  return answer;
}

/** Holds the version that is chosen. Errors as {@link withModel}, those of the choice itself thrown. */
export function choose(
  { deployment }: AnsweringDependencies,
  { selector, routingKey = "" }: ModelChoice,
): Promise<HeldModel> | HeldModel {
  const { log, models } = deployment;
  if (selector?.case === "alias") {
    const live = selector.value === championAlias ? requireChampion(deployment) : deployment.live(selector.value);
    return models.hold(live?.version ?? requireVersion(log, selector));
  }
  if (selector?.case !== undefined) return models.hold(requireVersion(log, selector));
  const champion = requireChampion(deployment);
  const canary = deployment.live(canaryAlias);
  const isCanary = canary !== undefined && takesCanary(routingKey, canary.version, log.shares.get(canaryAlias) ?? 0);
  return models.hold(isCanary ? canary.version : champion.version);
}

function requireChampion({ log, live }: AnsweringDependencies["deployment"]): LoadedModel {
  const model = live(championAlias);
  if (model !== undefined) return model;
  const text = `no version of model "${log.name}" is live yet; run the pipeline (npm start) or promote a version`;
  throw new AppError("MODEL_NOT_READY", text, { details: { model: log.name } });
}

interface Admitted {
  readonly model: LoadedModel;
  readonly places: Places<Uint8Array, Classification>;
  /** Whether the request named no version. */
  readonly isRouted: boolean;
}

function answeringModel(dependencies: AnsweringDependencies, { model, places, isRouted }: Admitted): AnsweringModel {
  const { version, manifest } = model;
  return {
    version,
    manifest,
    async classify(decode) {
      let pixels: Uint8Array = new Uint8Array();
      const keep = (decoded: Uint8Array) => {
        pixels = decoded;
        return decoded;
      };
      const batched = await places.submit(() => once(decode(), keep));
      const predictionId = dependencies.answers.note(model, pixels, batched.output);
      if (isRouted) mirror(dependencies, { model, pixels, answer: batched.output });
      return { ...batched, output: { ...batched.output, predictionId } };
    },
  };
}

/** Where in a request an image is. */
export interface ImagePlace {
  readonly field: string;
  /** Which image it is, where the field alone does not say. */
  readonly name?: string;
}

/** For what strangers send: no more pixels than take about a second, which is room for a camera's usual 24 megapixels. */
const decodeImage = createImageDecoder({
  maxPixels: 25_000_000,
  maxHeldPixels: 25_000_000,
  takesSvg: false,
});

/** Decodes an image to the pixels that a model takes, uint8 [C, H, W]. The error of one that cannot be decoded says where it is. */
export function decodeFor(
  { manifest }: Pick<AnsweringModel, "manifest">,
  image: Uint8Array,
  place: ImagePlace,
): Promise<Uint8Array> | Uint8Array {
  const { height = 0, width = 0, channels = 0 } = manifest.input ?? {};
  const startedMs = performance.now();
  const note = (pixels: Uint8Array) => {
    recordDecoding(performance.now() - startedMs);
    return pixels;
  };
  const fail = (thrown: unknown): never => {
    throw placed(thrown, place);
  };
  try {
    const decoded = decodeImage(image, { height, width, channels });
    return decoded instanceof Promise ? decoded.then(note, fail) : note(decoded);
  } catch (thrown) {
    return fail(thrown);
  }
}

function placed(thrown: unknown, { field, name }: ImagePlace): unknown {
  if (!(thrown instanceof AppError)) return thrown;
  const { code, message, details } = thrown;
  const text = name === undefined ? message : `${name}: ${message}`;
  return new AppError(code, text, { details: { ...details, field }, cause: thrown });
}

/** What becomes of a value that is there, or will be: one that is there waits for nothing. */
function once<T>(value: Promise<T> | T, use: (value: T) => T): Promise<T> | T {
  return value instanceof Promise ? value.then(use) : use(value);
}

const classifySettings = memoize((model: LoadedModel): SpanSettings => {
  return { attributes: attributesOf(model), links: linksTo(model), isLeaf: true };
});

function attributesOf({ version }: LoadedModel) {
  return {
    "millrace.model.name": version.name,
    "millrace.model.version": version.version,
    "millrace.dataset.digest": version.lineage?.datasetDigest ?? "",
  };
}

/** A link to the trace of the run that trained the model: from an answer, one click to where it came from. */
function linksTo({ version }: LoadedModel): Link[] {
  const training = trainingSpan(version);
  return training === undefined
    ? []
    : [{ context: training, attributes: { "millrace.run.id": version.lineage?.runId ?? "" } }];
}

function trainingSpan({ lineage }: ModelVersion): SpanContext | undefined {
  if (!lineage?.traceId || !lineage.spanId) return undefined;
  return { traceId: lineage.traceId, spanId: lineage.spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true };
}

/** The run's trace ends with the first answer of its model, linked to the caller's own trace. */
async function noteFirstAnswer(model: LoadedModel, parent: SpanContext): Promise<void> {
  model.firstAnswerParent = undefined;
  const caller = trace.getActiveSpan()?.spanContext();
  const links = caller === undefined ? [] : [{ context: caller }];
  const settings = { parent: trace.setSpanContext(context.active(), parent), attributes: attributesOf(model), links };
  await withSpan("first prediction", settings, () => undefined);
}
