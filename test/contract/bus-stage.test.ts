import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { headers } from "@nats-io/nats-core";
import { DatasetProgressedSchema } from "../../gen/millrace/v1/events_pb.ts";
import { onAbort } from "../../lib/abort.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import {
  eventually,
  isSettled,
  openTestBus,
  outcomes,
  prepared,
  requestRun,
  stageConsumer,
  storedEvents,
  storedMessages,
  testStage,
} from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

suite("a stage", { concurrency: 6 }, () => {
  test("publishes the outcome of its work, caused by the event, and acknowledges the message", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const stage = startStage(
      bus,
      testStage(async ({ message }, { runId, attempt, publish }) => {
        assert.deepEqual([runId, attempt, message.spec?.modelName], ["r1", 1, "r1"]);
        await publish(create(DatasetProgressedSchema), "1");
        return prepared();
      }),
    );
    const { id } = await requestRun(bus, "r1");
    const [outcome] = await eventually(
      "the outcome",
      async () => (await outcomes(bus, "r1")).length === 1 && outcomes(bus, "r1"),
    );
    assert.deepEqual([outcome?.causationId, outcome?.correlationId], [id, "r1"]);
    await eventually("the acknowledgement", () => isSettled(bus));
    assert.ok(stage.consuming());
    await stage.stop();
    assert.equal(stage.consuming(), false);
  });

  test("does no work twice when its event is stored again as a new message, beyond the duplicate window", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let runs = 0;
    const stage = startStage(
      bus,
      testStage(async () => {
        runs++;
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the first outcome", async () => (await outcomes(bus, "r1")).length === 1);
    const [first] = await storedMessages(bus, eventSubject("r1", "run.requested"));
    assert.ok(first);
    const again = headers();
    for (const key of first.header.keys()) if (!/^nats-/i.test(key)) again.set(key, first.header.get(key));
    const { seq } = await bus.js.publish(first.subject, first.data, { headers: again });
    assert.ok(seq > first.seq, "it is a message of its own");
    await eventually(
      "both are settled",
      async () => (await stageConsumer(bus)).ack_floor.stream_seq >= seq && isSettled(bus),
    );
    await stage.stop();
    assert.equal(runs, 1);
    assert.equal((await outcomes(bus, "r1")).length, 1);
  });

  test("makes a stream that was deleted under it again and goes on", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const stage = startStage(
      bus,
      testStage(async () => prepared()),
    );
    await eventually("it consumes", () => stage.consuming());
    await bus.jsm.streams.delete(eventStream);
    await requestRun(bus, "r1");
    await eventually("the outcome", async () => (await outcomes(bus, "r1")).length === 1);
    await stage.stop();
  });

  test("stores its outcome in a stream that was deleted and made again while it worked", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let deleted = false;
    const stage = startStage(
      bus,
      testStage(async () => {
        deleted = await bus.jsm.streams.delete(eventStream);
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the stream is gone", () => deleted);
    await eventually("the outcome", async () => (await outcomes(bus, "r1")).length === 1);
    await stage.stop();
  });

  test("keeps slow work alive by heartbeats, so that it is delivered once", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const attempts: number[] = [];
    const slow = testStage(
      async (_, { attempt }) => {
        attempts.push(attempt);
        await delay(1_600);
        return prepared();
      },
      { ackWaitMs: 400 },
    );
    const stages = [startStage(bus, slow), startStage(bus, slow)];
    await requestRun(bus, "r1");
    await eventually("the outcome", async () => (await outcomes(bus, "r1")).length === 1);
    await eventually("the acknowledgement", () => isSettled(bus));
    assert.equal((await stageConsumer(bus)).num_redelivered, 0);
    await Promise.all(stages.map((stage) => stage.stop()));
    assert.deepEqual(attempts, [1]);
  });

  test("shares its work with other instances", async (t) => {
    const nats = await startNats(t);
    await using first = await openTestBus(nats);
    await using second = await openTestBus(nats);
    const counts = [0, 0];
    const stages = [first, second].map((bus, index) =>
      startStage(
        bus,
        testStage(async () => {
          counts[index] = (counts[index] ?? 0) + 1;
          await delay(20);
          return prepared();
        }),
      ),
    );
    await eventually("both consume", () => stages.every((stage) => stage.consuming()));
    await Promise.all(Array.from({ length: 20 }, (_, index) => requestRun(first, `r${index}`)));
    await eventually("all outcomes", async () => (await outcomes(first, "*")).length === 20);
    await Promise.all(stages.map((stage) => stage.stop()));
    assert.equal(
      counts.reduce((sum, count) => sum + count),
      20,
    );
    assert.ok(Math.min(...counts) >= 3, `one instance did next to nothing: ${counts}`);
  });

  test("gives its message back at once when it stops, and another instance takes it", async (t) => {
    const nats = await startNats(t);
    await using leaving = await openTestBus(nats);
    await using staying = await openTestBus(nats);
    let begun = false;
    const left = startStage(
      leaving,
      testStage(
        async (_, { signal }) => {
          begun = true;
          await delay(60_000, undefined, { signal });
          return prepared();
        },
        { ackWaitMs: 60_000 },
      ),
    );
    await requestRun(leaving, "r1");
    await eventually("the first instance works", () => begun);
    const stoppedAt = performance.now();
    const stopped = left.stop();
    let attemptOfSecond = 0;
    const stayed = startStage(
      staying,
      testStage(
        async (_, { attempt }) => {
          attemptOfSecond = attempt;
          return prepared();
        },
        { ackWaitMs: 60_000 },
      ),
    );
    await stopped;
    await eventually("the second instance is done", async () => (await outcomes(staying, "r1")).length === 1);
    const tookMs = performance.now() - stoppedAt;
    assert.ok(tookMs < 5_000, `it took ${tookMs} ms`);
    assert.equal(attemptOfSecond, 2);
    await stayed.stop();
  });

  test("stores an outcome that was reached although the service stops", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let begun = false;
    const stage = startStage(
      bus,
      testStage(async () => {
        begun = true;
        await finished;
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the work began", () => begun);
    const stopped = stage.stop();
    finish();
    await stopped;
    assert.equal((await outcomes(bus, "r1")).length, 1);
    assert.ok(await isSettled(bus));
  });

  test("stores what its work has to tell although the service stops, and gives the message back", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let begun = false;
    const stage = startStage(
      bus,
      testStage(async (_event, { signal, publish }) => {
        begun = true;
        await new Promise<void>((resolve) => onAbort(signal, resolve));
        await publish(create(DatasetProgressedSchema), "at the end");
        throw signal.reason;
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the work began", () => begun);
    await stage.stop();
    assert.equal((await storedEvents(bus, eventSubject("r1", "dataset.progressed"))).length, 1);
    assert.equal((await outcomes(bus, "r1")).length, 0);
    const other = startStage(
      bus,
      testStage(async () => prepared()),
    );
    await eventually("another instance did it", async () => (await outcomes(bus, "r1")).length === 1);
    await other.stop();
  });

  test("leaves a handler that ignores its signal behind after the grace", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let begun = false;
    const stuck = testStage(
      () => {
        begun = true;
        return new Promise(() => {});
      },
      { stopGraceMs: 200, ackWaitMs: 60_000 },
    );
    const stage = startStage(bus, stuck);
    await requestRun(bus, "r1");
    await eventually("the work began", () => begun);
    await stage.stop();
    const other = startStage(
      bus,
      testStage(async () => prepared(), { ackWaitMs: 60_000 }),
    );
    await eventually("another instance did it", async () => (await outcomes(bus, "r1")).length === 1);
    await other.stop();
  });

  test("gives its message back within the grace although the server hangs", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let begun = false;
    const waiting = testStage(
      async (_, { signal }) => {
        begun = true;
        await delay(60_000, undefined, { signal });
        return prepared();
      },
      { stopGraceMs: 200 },
    );
    const stage = startStage(bus, waiting);
    await requestRun(bus, "r1");
    await eventually("the work began", () => begun);
    process.kill(nats.pid, "SIGSTOP");
    const before = performance.now();
    await stage.stop();
    assert.ok(performance.now() - before < 3_000, "stopping did not wait for the server");
    process.kill(nats.pid, "SIGCONT");
  });

  test("goes on after the server was killed while it waited, and stops while there is no server", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const stage = startStage(
      bus,
      testStage(async () => prepared()),
    );
    await eventually("it consumes", () => stage.consuming());
    await nats.kill();
    await eventually("it says that it does not consume", () => !stage.consuming());
    await nats.restart();
    await eventually("it consumes again", () => stage.consuming());
    await requestRun(bus, "r1");
    await eventually("the outcome", async () => (await outcomes(bus, "r1")).length === 1);
    await nats.kill();
    await eventually("the connection is lost", () => !stage.consuming());
    const before = performance.now();
    await stage.stop();
    await bus[Symbol.asyncDispose]();
    assert.ok(performance.now() - before < 3_000, "stopping did not wait for the server");
  });

  test("holds a finished outcome while the server is away, and stores it once it is back", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let tries = 0;
    const stage = startStage(
      bus,
      testStage(
        async () => {
          tries++;
          await nats.kill();
          return prepared();
        },
        { ackWaitMs: 30_000 },
      ),
    );
    await requestRun(bus, "r1");
    await eventually("the work was done", () => tries === 1);
    await eventually("the connection is lost", () => !stage.consuming());
    await nats.restart();
    await eventually("the connection is back", () => stage.consuming());
    await eventually("the outcome", async () => (await outcomes(bus, "r1")).length === 1);
    await stage.stop();
    assert.equal(tries, 1);
  });
});
