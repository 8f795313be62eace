import assert from "node:assert/strict";
import { suite, type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { node } from "@opentelemetry/sdk-node";
import { ArtifactSchema } from "../../gen/millrace/v1/artifact_pb.ts";
import { ModelRejectedSchema, RunCancelledSchema, RunSpecSchema } from "../../gen/millrace/v1/events_pb.ts";
import { MoveAliasRequestSchema } from "../../gen/millrace/v1/model_pb.ts";
import type { RunEvent } from "../../gen/millrace/v1/pipeline_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { eventStream, eventSubject, registryStream, runFilter } from "../../lib/bus/subjects.ts";
import { AppError, type ErrorCode } from "../../lib/errors.ts";
import { createRegistry } from "../../lib/registry/registry.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";
import { createPipeline } from "../../services/pipeline/handlers.ts";
import { openModelCatalogue } from "../../services/pipeline/model-catalogue.ts";
import { openRunIndex } from "../../services/pipeline/run-index.ts";
import { eventually, openTestBus, requestRun, storedEvents } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

const { signal } = new AbortController();
const spec = create(RunSpecSchema);
const isError = (code: ErrorCode, runId: string) => (thrown: unknown) => {
  assert.ok(thrown instanceof AppError, String(thrown));
  assert.deepEqual([thrown.code, thrown.details.runId], [code, runId]);
  return true;
};

const end = (bus: Bus, runId: string) => bus.publish(create(ModelRejectedSchema, { decision: {} }), { runId });
const cancel = (bus: Bus, runId: string) => bus.publish(create(RunCancelledSchema), { runId });

async function startBus(t: TestContext): Promise<Bus> {
  return openTestBus(await startNats(t));
}

/** A version of model "m". */
function register(bus: Bus, digest: string) {
  const version = { name: "m", digest, manifest: create(ArtifactSchema, { digest }), lineage: undefined };
  const cause = { id: digest, originTraceparent: "" };
  return createRegistry(bus).register(version, { runId: "", cause });
}

suite("the pipeline service", { concurrency: 3 }, () => {
  test("answers nothing before it has read the streams, and then all of it", async (t) => {
    await using bus = await startBus(t);
    for (let run = 0; run < 20; run++) await requestRun(bus, `r${run}`);
    await register(bus, "d1");
    await using runs = openRunIndex(bus);
    await using catalogue = openModelCatalogue(bus, createRegistry(bus));
    const pipeline = createPipeline({ bus, runs });
    const [run, list, again, models] = await Promise.all([
      pipeline.get("r19", signal),
      pipeline.list(100, signal),
      pipeline.request(spec, "r3", signal),
      catalogue.models(signal),
    ]);
    assert.deepEqual([run.runId, list.length, again.runId, models.length], ["r19", 20, "r3", 1]);
    assert.equal((await storedEvents(bus, runFilter("r3"))).length, 1, "a run that is known is not stored again");
  });

  test("lets go of a caller who has given up waiting, and does nothing for one who is gone", async (t) => {
    await using bus = await startBus(t);
    await register(bus, "d1");
    const reason = new AppError("CANCELLED", "the client went away");
    const gone = AbortSignal.abort(reason);
    await using index = openRunIndex(bus);
    await index.ready;
    const unread = { ...index, ready: new Promise<never>(() => {}) };
    const leaving = new AbortController();
    const waiting = createPipeline({ bus, runs: unread }).get("r1", leaving.signal);
    leaving.abort(reason);
    await assert.rejects(waiting, (thrown) => thrown === reason);

    await using catalogue = openModelCatalogue(bus, createRegistry(bus));
    const pipeline = createPipeline({ bus, runs: index });
    await requestRun(bus, "r1");
    const move = create(MoveAliasRequestSchema, { name: "m", alias: "champion", version: 1 });
    const calls = [
      pipeline.request(spec, "r2", gone),
      pipeline.cancel("r1", "", gone),
      catalogue.moveAlias(move, gone),
    ];
    for (const call of calls) await assert.rejects(call, (thrown) => thrown === reason);
    assert.equal((await storedEvents(bus, "millrace.v1.>")).length, 1);
    assert.equal((await bus.jsm.streams.info(registryStream)).state.messages, 1);
  });

  test("names the run whose request is stored but does not come back", async (t) => {
    await using bus = await startBus(t);
    await using runs = openRunIndex(bus);
    const leaving = new AbortController();
    const left = runs.reached({ runId: "r1", sequence: 1 }, leaving.signal);
    leaving.abort(new AppError("CANCELLED", "the client went away"));
    await assert.rejects(left, { code: "CANCELLED" });
    await assert.rejects(runs.reached({ runId: "r1", sequence: 1 }, signal), isError("DEADLINE_EXCEEDED", "r1"));
  });

  test("gives two who request the same run at the same time its one trace", async (t) => {
    const provider = new node.NodeTracerProvider();
    provider.register();
    t.after(() => provider.shutdown());
    await using bus = await startBus(t);
    await using runs = openRunIndex(bus);
    const pipeline = createPipeline({ bus, runs });
    const request = () => withSpan("a caller", {}, () => pipeline.request(spec, "r1", signal));
    const traceIds = (await Promise.all([request(), request()])).map(({ traceId }) => traceId);
    const { traceId } = await pipeline.get("r1", signal);
    assert.match(traceId, /^[0-9a-f]{32}$/);
    assert.deepEqual(traceIds, [traceId, traceId]);
  });

  test("says that nothing was cancelled where the run ended before the cancellation was stored", async (t) => {
    await using bus = await startBus(t);
    await using runs = openRunIndex(bus);
    const late: Bus = {
      ...bus,
      publish: async (message, options) => {
        await end(bus, options.runId);
        return bus.publish(message, options);
      },
    };
    const pipeline = createPipeline({ bus: late, runs });
    for (const runId of ["r1", "r2"]) await runs.reached({ runId, ...(await requestRun(bus, runId)) }, signal);
    await assert.rejects(pipeline.cancel("r1", "", signal), isError("RUN_ENDED", "r1"));
    await createPipeline({ bus, runs }).cancel("r2", "", signal);
    await assert.rejects(pipeline.cancel("r2", "", signal), isError("RUN_ENDED", "r2"));
  });

  test("ends the watching of a run of which the end, or everything, is no longer stored", async (t) => {
    await using bus = await startBus(t);
    await using runs = openRunIndex(bus);
    const pipeline = createPipeline({ bus, runs });
    for (const runId of ["r1", "r2"]) {
      await requestRun(bus, runId);
      await runs.reached({ runId, ...(await cancel(bus, runId)) }, signal);
    }
    await bus.jsm.streams.purge(eventStream, { filter: runFilter("r1") });
    await bus.jsm.streams.purge(eventStream, { filter: eventSubject("r2", "run.cancelled") });
    await assert.rejects(
      pipeline.watch("r1", () => {}, signal),
      isError("RUN_NOT_FOUND", "r1"),
    );
    const seen: RunEvent["event"]["case"][] = [];
    await pipeline.watch("r2", ({ event }) => seen.push(event.case), signal);
    assert.deepEqual(seen, ["runRequested"]);
  });

  test("forgets what was in streams that have been made anew, and ends the watching of what is gone", async (t) => {
    await using bus = await startBus(t);
    await requestRun(bus, "old");
    await register(bus, "d1");
    await register(bus, "d2");
    await using runs = openRunIndex(bus);
    await using catalogue = openModelCatalogue(bus, createRegistry(bus));
    const pipeline = createPipeline({ bus, runs });
    assert.equal((await catalogue.versions("m", signal)).length, 2);
    let seen = 0;
    const watched = pipeline.watch("old", () => seen++, signal);
    await eventually("its first event", () => seen === 1);
    for (const stream of [eventStream, registryStream]) await bus.jsm.streams.delete(stream);
    for (const runId of ["new-1", "new-2"]) await requestRun(bus, runId);
    await register(bus, "d3");
    await assert.rejects(watched, isError("RUN_NOT_FOUND", "old"));
    await eventually("the new runs alone", async () => {
      const ids = (await pipeline.list(10, signal)).map(({ runId }) => runId);
      return ids.join() === "new-2,new-1";
    });
    await eventually("the new version alone", async () => {
      const versions = await catalogue.versions("m", signal).catch(() => []);
      return versions.map(({ digest }) => digest).join() === "d3";
    });
  });
});
