/**
 * A process of its own that runs one test stage, to be killed. Told by STAGE_PROCESS (see {@link StageProcessSettings}),
 * it says over IPC when a handler begins, and ends in good order on SIGTERM.
 */
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { DatasetProgressedSchema } from "../../gen/millrace/v1/events_pb.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { openTestBus, prepared, testStage } from "./bus.ts";

export interface StageProcessSettings {
  readonly url: string;
  readonly ackWaitMs: number;
  readonly maxAttempts: number;
  /** What the handler does: its work; nothing at the first try; or the process's death, unless the run is called "good". */
  readonly behaviour: "work" | "hang at first" | "die";
  /** Events that it publishes on the way, and how long each takes. */
  readonly steps?: number;
  readonly stepMs?: number;
}

/** Sent to the parent when a handler begins. */
export interface Begun {
  readonly runId: string;
  readonly attempt: number;
}

const settings = JSON.parse(process.env.STAGE_PROCESS ?? "{}") as StageProcessSettings;
const { behaviour, steps = 0, stepMs = 0, ackWaitMs, maxAttempts } = settings;
const bus = await openTestBus(settings, { service: `stage-${process.pid}` });

const stage = startStage(
  bus,
  testStage(
    async (_, { runId, attempt, publish, signal }) => {
      process.send?.({ runId, attempt } satisfies Begun);
      if (behaviour === "die" && runId !== "good") process.kill(process.pid, "SIGKILL");
      if (behaviour === "hang at first" && attempt === 1) await delay(2 ** 30, undefined, { signal });
      for (let step = 0; step < steps; step++) {
        await delay(stepMs, undefined, { signal });
        await publish(create(DatasetProgressedSchema, { progress: { done: BigInt(step) } }), String(step));
      }
      return prepared();
    },
    { ackWaitMs, maxAttempts },
  ),
);

process.once("SIGTERM", async () => {
  await stage.stop();
  await bus[Symbol.asyncDispose]();
  process.disconnect();
});
