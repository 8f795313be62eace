import { create, type Message } from "@bufbuild/protobuf";
import {
  type EvaluationReport,
  type GateDecision,
  GateDecisionSchema,
  type GatePolicy,
} from "../../gen/millrace/v1/evaluation_pb.ts";
import {
  EvaluationProgressedSchema,
  EvaluationStartedSchema,
  ModelEvaluatedSchema,
  ModelPromotedSchema,
  ModelRejectedSchema,
  type ModelTrained,
  ModelTrainedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { ModelVersion } from "../../gen/millrace/v1/model_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { progressPublisher } from "../../lib/bus/progress-publisher.ts";
import type { Stage } from "../../lib/bus/stage.ts";
import { AppError } from "../../lib/errors.ts";
import { readManifest } from "../../lib/images/manifest.ts";
import { decide } from "../../lib/nn/gate.ts";
import { championAlias, type ModelLog, requireVersion, versionNumber } from "../../lib/registry/model-log.ts";
import { readModelManifest } from "../../lib/registry/model-manifest.ts";
import { type ChangeOrigin, changeId, type Registry } from "../../lib/registry/registry.ts";
import { recordMetric } from "../../lib/telemetry/metrics.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import { fits, type Measured, measure } from "./measure.ts";

export interface EvaluationDependencies {
  readonly artifacts: ArtifactStore;
  readonly registry: Registry;
  /** What a model must reach where a run says nothing else. */
  readonly gate: Pick<GatePolicy, "minimumAccuracy">;
}

export interface EvaluationOrder {
  readonly version: ModelVersion;
  /** Data set on whose test split it is measured. */
  readonly datasetDigest: string;
  readonly onProgress: (done: number, total: number) => void;
  readonly signal: AbortSignal;
}

/** The work of the service: the same for an event and for a request. */
export interface Evaluation {
  /** A version by its number. MODEL_NOT_FOUND if there is none. */
  find(modelName: string, version: number): Promise<ModelVersion>;
  /** Measures a version. */
  evaluate(order: EvaluationOrder): Promise<EvaluationReport>;
  /** Decides whether a measured version may go live, and if so lets it: the alias "champion" moves. */
  decide(candidate: Candidate): Promise<GateDecision>;
}

/** A measured version before the gate. */
export interface Candidate {
  readonly version: ModelVersion;
  readonly report: EvaluationReport;
  readonly policy: Pick<GatePolicy, "minimumAccuracy"> | undefined;
  readonly origin: ChangeOrigin;
  /** Called before the alias moves; throws if nobody wants that any more. */
  readonly commit: () => void;
  readonly signal: AbortSignal;
}

export function createEvaluation(dependencies: EvaluationDependencies): Evaluation {
  const evaluate = (order: EvaluationOrder) => evaluateVersion(dependencies, order);
  return {
    find: async (modelName, version) =>
      requireVersion(await dependencies.registry.read(modelName), versionNumber(version)),
    evaluate,
    decide: (candidate) => decideOn(dependencies, evaluate, candidate),
  };
}

async function evaluateVersion(
  { artifacts }: EvaluationDependencies,
  order: EvaluationOrder,
): Promise<EvaluationReport> {
  const { version, datasetDigest, onProgress, signal } = order;
  const attributes = {
    "millrace.model.name": version.name,
    "millrace.model.version": version.version,
    "millrace.dataset.digest": datasetDigest,
  };
  return withSpan("evaluate", { attributes }, async (span) => {
    const dataset: Measured = { digest: datasetDigest, manifest: await readManifest(datasetDigest, { artifacts }) };
    const model = await readModelManifest(version, artifacts);
    const report = await measure(model, dataset, { artifacts, onProgress, signal });
    span.setAttributes({
      "millrace.images.count": report.imageCount,
      "millrace.evaluation.accuracy": report.accuracy,
    });
    recordMetric("millrace.evaluation.images", report.imageCount, { "millrace.model.name": version.name });
    recordMetric("millrace.evaluation.accuracy", report.accuracy, { "millrace.model.name": version.name });
    return report;
  });
}

async function decideOn(
  dependencies: EvaluationDependencies,
  evaluate: Evaluation["evaluate"],
  candidate: Candidate,
): Promise<GateDecision> {
  const { registry, gate } = dependencies;
  const { version, report, origin, commit, signal } = candidate;
  return withSpan("decide", { attributes: { "millrace.model.name": version.name } }, async (span) => {
    const log = await registry.read(version.name, { ...origin, signal });
    const champion = championBefore(log, origin, version);
    const championReport = champion && (await reportOf(dependencies, evaluate, champion, candidate));
    const { promote, checks } = decide({
      candidate: report,
      champion: championReport,
      minimumAccuracy: (candidate.policy ?? gate).minimumAccuracy,
    });
    const decision = create(GateDecisionSchema, {
      promote,
      checks: [...checks],
      championVersion: champion?.version ?? 0,
    });
    const reason = decision.checks.map(({ message }) => message).join("; ");
    span.setAttributes({
      "millrace.evaluation.promoted": promote,
      "millrace.evaluation.champion_version": decision.championVersion,
      "millrace.evaluation.reason": reason,
    });
    const outcome = { "millrace.model.name": version.name, "millrace.evaluation.promoted": promote };
    recordMetric("millrace.evaluation.decisions", 1, outcome);
    if (promote) {
      commit();
      const move = { modelName: version.name, version: version.version, expectedVersion: champion?.version ?? 0 };
      await registry.moveAlias({ ...move, reason }, { ...origin, signal });
    }
    return decision;
  });
}

/** The version that was live before this run's own promotion, should an earlier try have got that far. */
function championBefore(log: ModelLog, origin: ChangeOrigin, candidate: ModelVersion): ModelVersion | undefined {
  const ownMove = log.changes.has(changeId(origin, "millrace.v1.ModelAliasMoved"))
    ? log.moves.findLast(({ version, runId }) => version === candidate.version && runId === origin.runId)
    : undefined;
  return log.versions.get(ownMove?.previousVersion ?? log.aliases.get(championAlias) ?? 0);
}

/** The champion's quality on the candidate's data set; undefined if it was made for other images or classes. */
async function reportOf(
  { artifacts }: EvaluationDependencies,
  evaluate: Evaluation["evaluate"],
  champion: ModelVersion,
  { report: { datasetDigest }, signal }: Candidate,
): Promise<EvaluationReport | undefined> {
  if (champion.evaluation?.datasetDigest === datasetDigest) return champion.evaluation;
  const dataset = { digest: datasetDigest, manifest: await readManifest(datasetDigest, { artifacts }) };
  if (!fits(await readModelManifest(champion, artifacts), dataset)) return undefined;
  return evaluate({ version: champion, datasetDigest, onProgress: () => {}, signal });
}

/** The third stage of a run: from "model.trained" to "model.promoted" or "model.rejected". */
export function evaluationStage(evaluation: Evaluation, registry: Registry): Stage<typeof ModelTrainedSchema> {
  return {
    name: "evaluation",
    consumes: ModelTrainedSchema,
    outcomes: [ModelPromotedSchema, ModelRejectedSchema],
    handle: async (event: ReceivedEvent<ModelTrained>, context): Promise<Message> => {
      const { runId, signal, publish, commit } = context;
      const startedMs = performance.now();
      const { model, spec } = event.message;
      if (model?.lineage === undefined)
        throw new AppError("EVENT_INVALID", `event ${event.id} of run ${runId} names no model`);
      const { name: modelName, version } = model;
      const origin = { runId, cause: event, signal, patient: true };
      await publish(create(EvaluationStartedSchema, { modelName, version }));
      const { datasetDigest } = model.lineage;
      const reports = progressPublisher(context);
      const onProgress = (done: number, total: number) =>
        reports.publish(create(EvaluationProgressedSchema, { progress: { done, total } }), String(done));
      const report = await evaluation.evaluate({ version: model, datasetDigest, onProgress, signal });
      await reports.settled();
      await registry.recordEvaluation(modelName, version, report, origin);
      const durationSeconds = (performance.now() - startedMs) / 1000;
      await publish(create(ModelEvaluatedSchema, { modelName, version, report, durationSeconds }));
      const decision = await evaluation.decide({ version: model, report, policy: spec?.gate, origin, commit, signal });
      return create(decision.promote ? ModelPromotedSchema : ModelRejectedSchema, {
        modelName,
        version,
        decision,
        report,
      });
    },
  };
}
