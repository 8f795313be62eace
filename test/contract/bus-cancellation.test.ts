import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { RunCancelledSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { watchCancellation } from "../../lib/bus/cancellation.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { deadLetterStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { eventually, isSettled, openTestBus, prepared, requestRun, storedMessages, testStage } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

const cancelRun = (bus: Bus, runId: string) =>
  bus.publish(create(RunCancelledSchema, { reason: "changed my mind" }), { runId });

/** Nothing but the request and its cancellation: no outcome, no failure, no dead letter. */
async function assertNothingCame(bus: Bus, runId: string): Promise<void> {
  const names = (await storedMessages(bus, eventSubject(runId, ">"))).map(({ subject }) =>
    subject.split(".").slice(3).join("."),
  );
  assert.deepEqual(names.sort(), ["run.cancelled", "run.requested"]);
  assert.equal((await storedMessages(bus, "millrace.dead.v1.>", deadLetterStream)).length, 0);
}

suite("cancelling a run", { concurrency: 3 }, () => {
  test("before a stage begins keeps it from beginning", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await requestRun(bus, "r1");
    await cancelRun(bus, "r1");
    let begun = false;
    const stage = startStage(
      bus,
      testStage(async () => {
        begun = true;
        return prepared();
      }),
    );
    await eventually("the consumer is there", () => stage.consuming());
    await eventually("the message is settled", () => isSettled(bus));
    await stage.stop();
    assert.equal(begun, false);
    await assertNothingCame(bus, "r1");
  });

  test("during a stage's work aborts it at once, and nothing comes of it", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let reason: unknown;
    let begun = false;
    const stage = startStage(
      bus,
      testStage(async (_, { signal }) => {
        begun = true;
        signal.addEventListener("abort", () => (reason = signal.reason));
        await delay(60_000, undefined, { signal });
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the work began", () => begun);
    const before = performance.now();
    await cancelRun(bus, "r1");
    await eventually("the work was aborted", () => reason !== undefined);
    assert.ok(performance.now() - before < 2_000);
    await eventually("the message is settled", () => isSettled(bus));
    await stage.stop();
    assert.equal(AppError.from(reason).code, "CANCELLED");
    await assertNothingCame(bus, "r1");
  });

  test("during work that does not listen discards its outcome", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const stage = startStage(
      bus,
      testStage(async (_, { signal }) => {
        await cancelRun(bus, "r1");
        await eventually("the signal", () => signal.aborted);
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the consumer is there", () => stage.consuming());
    await eventually("the message is settled", () => isSettled(bus));
    await stage.stop();
    await assertNothingCame(bus, "r1");
  });

  test("after the stage committed itself comes too late", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let aborted = true;
    const stage = startStage(
      bus,
      testStage(async (_, { signal, commit }) => {
        commit();
        await cancelRun(bus, "r1");
        // Whoever still listened would have heard it by the time that the broker has answered a later question.
        await bus.nc.flush();
        aborted = signal.aborted;
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the consumer is there", () => stage.consuming());
    await eventually("the message is settled", () => isSettled(bus));
    await stage.stop();
    assert.equal(aborted, false);
    assert.equal((await storedMessages(bus, eventSubject("r1", "dataset.prepared"))).length, 1);
  });

  test("before the stage commits itself stops it there", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let wentOn = false;
    const stage = startStage(
      bus,
      testStage(async (_, { signal, commit }) => {
        await cancelRun(bus, "r1");
        await eventually("the signal", () => signal.aborted);
        commit();
        wentOn = true;
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the consumer is there", () => stage.consuming());
    await eventually("the message is settled", () => isSettled(bus));
    await stage.stop();
    assert.equal(wentOn, false);
    await assertNothingCame(bus, "r1");
  });

  test("after the work is done changes nothing", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const stage = startStage(
      bus,
      testStage(async () => prepared()),
    );
    await requestRun(bus, "r1");
    const outcome = eventSubject("r1", "dataset.prepared");
    await eventually("the outcome", async () => (await storedMessages(bus, outcome)).length === 1);
    await cancelRun(bus, "r1");
    await eventually("the message is settled", () => isSettled(bus));
    await stage.stop();
    assert.equal((await storedMessages(bus, outcome)).length, 1);
  });

  test("while a worker cannot hear it reaches the worker when it is connected again", async (t) => {
    const nats = await startNats(t);
    await using worker = await openTestBus(nats);
    await using other = await openTestBus(nats);
    using cancellation = await watchCancellation(worker, "r1");
    // Without its subscription the worker is as deaf as without a connection, and the other one can publish.
    for (const subscription of subscriptionsTo(worker, "r1")) subscription.unsubscribe();
    await cancelRun(other, "r1");
    await nats.kill();
    await eventually("the connection is lost", () => !worker.connection.connected());
    assert.equal(cancellation.signal.aborted, false);
    await nats.restart();
    await eventually("the cancellation is found in the stream", () => cancellation.signal.aborted, 4_000);
  });

  test("leaves no subscription behind when the first question fails", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats, { publishTimeoutMs: 100 });
    await nats.kill();
    await assert.rejects(watchCancellation(bus, "r1"), /could not be read/);
    assert.deepEqual(subscriptionsTo(bus, "r1"), []);
  });
});

interface Subscription {
  readonly subject: string;
  unsubscribe(): void;
}

/** The client has no public list of its subscriptions. */
function subscriptionsTo(bus: Bus, runId: string): Subscription[] {
  const { protocol } = bus.nc as unknown as { protocol: { subscriptions: { all(): Subscription[] } } };
  return protocol.subscriptions.all().filter(({ subject }) => subject === eventSubject(runId, "run.cancelled"));
}
