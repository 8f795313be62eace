import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { PipelineService } from "../../../gen/millrace/v1/pipeline_pb.ts";
import { PredictionService, type PredictRequestSchema } from "../../../gen/millrace/v1/prediction_pb.ts";
import { AppError } from "../../../lib/errors.ts";
import { createLogger, type Logger } from "../../../lib/log.ts";
import { createHealth, type Health } from "../../../lib/rpc/health.ts";
import { createRpcServer, type ListeningServer, type RpcServerOptions, rpcService } from "../../../lib/rpc/server.ts";
import { withSpan } from "../../../lib/telemetry/spans.ts";
import { partialService } from "../../helpers/partial-service.ts";

/** A server's connections must be gone within this time after its clients are closed. */
const leakTimeoutMs = 5_000;

export interface RunningServer extends ListeningServer {
  readonly health: Health;
  /** What the server wrote to its log, parsed. */
  readonly logLines: readonly Record<string, unknown>[];
  /** Resolves with the signal of the next call that waits in its handler. */
  nextWaiting(): Promise<AbortSignal>;
  /** Closes a client when the test ends, before the server closes. */
  closeLater(close: () => void): void;
}

/**
 * A server on a free port whose prediction service does what the image's text says:
 * "missing", "stranger", "long" and "half" throw, "field" names a field, "wait" waits for its signal, "deaf" waits for ever,
 * and anything else is the label of the answer. WatchRun sends one message and waits for its signal; of the run
 * "endless" it sends messages as fast as it can.
 *
 * The test fails if a connection is still open after it.
 */
export async function startServer(t: TestContext, options: Partial<RpcServerOptions> = {}): Promise<RunningServer> {
  const health = createHealth();
  const logLines: Record<string, unknown>[] = [];
  let announce = (_signal: AbortSignal) => {};
  const wait = (signal: AbortSignal) => announce(signal);
  const server = createRpcServer({
    services: [
      partialService(PredictionService, predictionService(wait)),
      rpcService(PipelineService, pipelineService(wait)),
    ],
    health,
    logger: memoryLogger(logLines),
    ...options,
  });
  const listening = await server.listen({ host: "127.0.0.1", port: 0 });
  health.setAll(true);
  const closers: (() => void)[] = [];
  t.after(async () => {
    for (const close of closers) close();
    const leak = delay(leakTimeoutMs, true, { ref: false });
    if (await Promise.race([listening.close(60_000), leak])) throw new Error("a connection is still open");
  });
  return {
    ...listening,
    health,
    logLines,
    nextWaiting: () =>
      new Promise((resolve) => {
        announce = resolve;
      }),
    closeLater: (close) => closers.push(close),
  };
}

/** A request to the toy prediction service. */
export function predictRequest(text: string): MessageInitShape<typeof PredictRequestSchema> {
  return { input: { case: "image", value: new TextEncoder().encode(text) }, topK: 1 };
}

/** What a promise rejects with; fails if it does not. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => assert.fail("expected a rejection"),
    (error: unknown) => error,
  );
}

function predictionService(wait: (signal: AbortSignal) => void): Partial<ServiceImpl<typeof PredictionService>> {
  return {
    async predict({ input }, { signal }) {
      const label = input.case === "image" ? new TextDecoder().decode(input.value) : "";
      if (label === "missing") {
        throw new AppError("MODEL_NOT_READY", "no model is live yet", { details: { model: "pictograms" } });
      }
      if (label === "field") throw new AppError("INVALID_REQUEST", "no such class", { details: { field: "topK" } });
      if (label === "long")
        throw new AppError("INVALID_REQUEST", `x${"😀".repeat(50_000)}`, { details: { model: label.repeat(9_000) } });
      if (label === "half") throw new AppError("INVALID_REQUEST", "half of one: \ud83d");
      if (label === "stranger") throw new TypeError("the password is swordfish");
      if (label === "deaf") wait(signal);
      if (label === "deaf") await new Promise(() => {});
      if (label === "wait") wait(signal);
      if (label === "wait") await aborted(signal);
      return { predictions: [{ label, classIndex: 1, probability: 0.5 }] };
    },
    getModel: () => ({ classes: ["cat", "dog"] }),
  };
}

function pipelineService(wait: (signal: AbortSignal) => void): ServiceImpl<typeof PipelineService> {
  const unused = () => {
    throw new AppError("RUN_NOT_FOUND", "no such run");
  };
  return {
    requestRun: unused,
    getRun: unused,
    listRuns: unused,
    cancelRun: unused,
    async *watchRun({ runId }, { signal }) {
      yield await withSpan("look for the run", {}, () => ({ run: { runId } }));
      if (runId === "endless") for (;;) yield { run: { runId: runId.repeat(1_000) } };
      wait(signal);
      await aborted(signal);
    },
  };
}

/** Rejects with the signal's reason when it aborts. */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}

function memoryLogger(lines: Record<string, unknown>[]): Logger {
  return createLogger({
    service: "test",
    level: "debug",
    destination: { write: (line) => lines.push(JSON.parse(line)) },
  });
}
