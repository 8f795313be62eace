import { setTimeout as delay } from "node:timers/promises";
import { createMillraceClient, type MillraceClient } from "../../client/client.ts";
import type { Run } from "../../gen/millrace/v1/pipeline_pb.ts";
import { AppError } from "../../lib/errors.ts";
import { followRun } from "../follow-run.ts";
import type { StartOptions } from "./options.ts";
import { runSeconds, statusName } from "./report.ts";
import { applyToView, emptyView, plainLine, type RunView, renderView, withDeployment } from "./run-view.ts";
import type { Session } from "./session.ts";
import { stageNames } from "./stage-changes.ts";

const redrawIntervalMs = 200;
const deploymentTimeoutMs = 60_000;
const deploymentPollMs = 50;

/** Requests a run and shows it until it has ended: live where a person watches, as lines elsewhere. */
export async function requestAndWatch(
  session: Session,
  pipeline: MillraceClient["pipeline"],
  predictionUrl: string,
): Promise<Run> {
  const { options, screen, style, interrupted } = session;
  const { runId } = await pipeline.requestRun({ spec: specFrom(options) });
  screen.line(`\n${style.bold("Run")} ${runId} on ${options.dataset}`);
  let view = emptyView;
  let last: Run | undefined;
  const redraw = () => screen.draw(renderView(view, style, Date.now()));
  const ticking = setInterval(redraw, redrawIntervalMs);
  try {
    for await (const { event, run } of followRun(pipeline, runId, interrupted)) {
      const before = view;
      view = applyToView(view, event, run);
      last = run;
      if (!screen.interactive) writeChanges(session, before, view);
    }
    if (last?.decision?.promote === true) {
      await deployed(last, predictionUrl, interrupted);
      const before = view;
      view = withDeployment(view, last, Date.now());
      if (!screen.interactive) writeChanges(session, before, view);
    }
    redraw();
  } finally {
    clearInterval(ticking);
    screen.keep();
  }
  if (last === undefined) throw new AppError("INTERNAL", `run ${runId} ended without an event`, { details: { runId } });
  screen.line(`  ${statusName(last)} after ${runSeconds(last)}`);
  return last;
}

/** Resolves when the prediction service answers with the run's model. */
async function deployed(run: Run, baseUrl: string, signal: AbortSignal): Promise<void> {
  const millrace = createMillraceClient({ baseUrl });
  const deadline = Date.now() + deploymentTimeoutMs;
  try {
    for (;;) {
      const model = await millrace.predictions.getModel({}, { signal }).then(
        (answer) => answer.model,
        () => undefined, // no model yet, or the service is being started again
      );
      if (model?.name === run.modelName && model.version >= run.modelVersion) return;
      if (Date.now() > deadline) {
        const seconds = deploymentTimeoutMs / 1000;
        throw new AppError(
          "MODEL_NOT_READY",
          `model ${run.modelName} version ${run.modelVersion} was promoted, but does not answer after ${seconds} s; see the prediction service's log`,
        );
      }
      await delay(deploymentPollMs, undefined, { signal });
    }
  } finally {
    millrace.close();
  }
}

function writeChanges({ screen }: Session, before: RunView, after: RunView): void {
  for (const name of stageNames) {
    const stage = after.stages[name];
    if (stage !== before.stages[name] && stage.passing !== true) screen.line(plainLine(name, stage));
  }
}

function specFrom({ dataset, limit, seed, network, epochs, hyperparameters, minimumAccuracy }: StartOptions) {
  return {
    dataset: { source: dataset, limitPerClass: limit, seed: BigInt(seed ?? 0) },
    training: {
      hyperparameters,
      ...(network === undefined ? {} : { network }),
      ...(epochs === undefined ? {} : { epochs }),
      ...(seed === undefined ? {} : { seed }),
    },
    ...(minimumAccuracy === undefined ? {} : { gate: { minimumAccuracy } }),
  };
}
