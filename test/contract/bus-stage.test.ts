import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { headers } from "@nats-io/nats-core";
import { DatasetProgressedSchema, type RunFailed, RunFailedSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { decodeHeaderValue } from "../../lib/bus/cloud-event.ts";
import { deadLetterHeaders } from "../../lib/bus/dead-letters.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { deadLetterStream, eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import {
  eventually,
  openTestBus,
  prepared,
  requestRun,
  storedEvents,
  storedMessages,
  testStage,
} from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

const outcomes = (bus: Bus, runId: string) => storedEvents(bus, eventSubject(runId, "dataset.prepared"));
const failures = async (bus: Bus, runId: string) =>
  (await storedEvents(bus, eventSubject(runId, "run.failed"))).map(({ message }) => message as RunFailed);

async function consumerState(bus: Bus) {
  return bus.jsm.consumers.info(eventStream, "ingestion");
}

const settled = async (bus: Bus) => {
  const { num_pending, num_ack_pending } = await consumerState(bus);
  return num_pending === 0 && num_ack_pending === 0;
};

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
    await eventually("the acknowledgement", () => settled(bus));
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
      async () => (await consumerState(bus)).ack_floor.stream_seq >= seq && settled(bus),
    );
    await stage.stop();
    assert.equal(runs, 1);
    assert.equal((await outcomes(bus, "r1")).length, 1);
  });

  test("keeps garbage as a dead letter with the reasons, tells no run, and serves the next message", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const subject = eventSubject("r1", "run.requested");
    const { seq } = await bus.js.publish(subject, new Uint8Array([1, 2, 3]));
    await requestRun(bus, "r2");
    const stage = startStage(
      bus,
      testStage(async () => prepared()),
    );
    await eventually("the next outcome", async () => (await outcomes(bus, "r2")).length === 1);
    await stage.stop();
    const [letter, ...more] = await storedMessages(bus, "millrace.dead.v1.>", deadLetterStream);
    assert.ok(letter);
    assert.equal(more.length, 0);
    assert.equal(letter.subject, "millrace.dead.v1.ingestion.r1");
    assert.deepEqual([...letter.data], [1, 2, 3]);
    const read = (name: keyof typeof deadLetterHeaders) =>
      decodeHeaderValue(letter.header.get(deadLetterHeaders[name]));
    assert.deepEqual(
      [read("stage"), read("code"), read("attempts"), read("subject"), read("stream"), read("sequence")],
      ["ingestion", "EVENT_INVALID", "1", subject, eventStream, String(seq)],
    );
    assert.match(read("reason"), /is not a CloudEvent: it has no ce-id/);
    assert.deepEqual(await failures(bus, "r1"), []);
  });

  test("fails the run of an event whose data or type it cannot take", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const event = (type: string) => {
      const result = headers();
      const attributes = { id: "e1", source: "x", specversion: "1.0", type };
      for (const [name, value] of Object.entries(attributes)) result.set(`Ce-${name}`, value);
      return result;
    };
    const publish = (runId: string, type: string, data: Uint8Array) =>
      bus.js.publish(eventSubject(runId, "run.requested"), data, { headers: event(type) });
    await publish("broken", "millrace.v1.RunRequested", new Uint8Array([0xff, 0xff]));
    await publish("other", "millrace.v1.RunCancelled", new Uint8Array());
    await publish("unknown", "millrace.v1.Nothing", new Uint8Array());
    const stage = startStage(
      bus,
      testStage(async () => prepared()),
    );
    for (const runId of ["broken", "other", "unknown"]) {
      const [failure] = await eventually(
        runId,
        async () => (await failures(bus, runId)).length === 1 && failures(bus, runId),
      );
      assert.equal(failure?.code, "EVENT_INVALID");
    }
    await stage.stop();
  });

  test("gives up at once on an error that trying again cannot mend, and says so once", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let tries = 0;
    const stage = startStage(
      bus,
      testStage(async (_, { runId }) => {
        if (runId === "good") return prepared();
        tries++;
        throw new AppError("DATASET_INVALID", 'no images in "Übung 1"; name another folder');
      }),
    );
    await requestRun(bus, "bad");
    await requestRun(bus, "good");
    await eventually("the next outcome", async () => (await outcomes(bus, "good")).length === 1);
    await eventually("all is settled", () => settled(bus));
    await stage.stop();
    assert.equal(tries, 1);
    const [letter] = await storedMessages(bus, "millrace.dead.v1.ingestion.bad", deadLetterStream);
    assert.ok(letter);
    const reason = letter.header.get(deadLetterHeaders.reason);
    assert.equal(decodeHeaderValue(reason), 'no images in "Übung 1"; name another folder');
    assert.equal(letter.header.get("ce-correlationid"), "bad", "the headers of the message are kept");
    const told = await failures(bus, "bad");
    assert.equal(told.length, 1);
    const { code, stage: name, attempts, deadLetterSequence } = told[0] as RunFailed;
    assert.deepEqual(
      [code, name, attempts, deadLetterSequence],
      ["DATASET_INVALID", "ingestion", 1, BigInt(letter.seq)],
    );
  });

  test("tries again after growing pauses, and gives up when the tries are used up", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const times: number[] = [];
    const stage = startStage(
      bus,
      testStage(
        async () => {
          times.push(performance.now());
          throw new AppError("ARTIFACT_TIMEOUT", "the store did not answer");
        },
        { maxAttempts: 4, retryDelaysMs: [100, 300], ackWaitMs: 20_000 },
      ),
    );
    await requestRun(bus, "r1");
    const [failure] = await eventually(
      "the failure",
      async () => (await failures(bus, "r1")).length === 1 && failures(bus, "r1"),
    );
    await stage.stop();
    assert.deepEqual([failure?.attempts, failure?.code], [4, "ARTIFACT_TIMEOUT"]);
    const pauses = times.slice(1).map((time, index) => time - (times[index] ?? 0));
    for (const [index, least] of [100, 300, 300].entries()) {
      const pause = pauses[index] ?? 0;
      assert.ok(pause >= least * 0.95 && pause < least + 2_000, `pause ${index} took ${pause} ms instead of ${least}`);
    }
  });

  test("works again on an event that is sent again after it had failed", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let healthy = false;
    const stage = startStage(
      bus,
      testStage(async () => {
        if (healthy) return prepared();
        throw new AppError("DATASET_INVALID", "no images");
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the failure", async () => (await failures(bus, "r1")).length === 1);
    const resend = async () => {
      const [message] = await storedMessages(bus, eventSubject("r1", "run.requested"));
      assert.ok(message);
      const again = headers();
      for (const key of message.header.keys()) if (/^ce-/.test(key)) again.set(key, message.header.get(key));
      await bus.js.publish(message.subject, message.data, { headers: again });
    };
    await resend();
    await eventually("the second failure is told too", async () => (await failures(bus, "r1")).length === 2);
    healthy = true;
    await resend();
    await eventually("the outcome", async () => (await outcomes(bus, "r1")).length === 1);
    await stage.stop();
  });

  test("does not run failed work again when its consumer is made anew", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let tries = 0;
    const stage = startStage(
      bus,
      testStage(async (_, { runId }) => {
        if (runId === "good") return prepared();
        tries++;
        throw new AppError("DATASET_INVALID", "no images");
      }),
    );
    await requestRun(bus, "bad");
    await eventually("the failure", async () => (await failures(bus, "bad")).length === 1);
    await eventually("all is settled", () => settled(bus));
    await bus.jsm.consumers.delete(eventStream, "ingestion");
    await requestRun(bus, "good");
    await eventually("the stage goes on", async () => (await outcomes(bus, "good")).length === 1);
    await eventually("all is settled", () => settled(bus));
    await stage.stop();
    assert.equal(tries, 1);
    assert.equal((await failures(bus, "bad")).length, 1);
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
    await eventually("the outcome", async () => (await outcomes(bus, "r1").catch(() => [])).length === 1);
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
    await eventually("the acknowledgement", () => settled(bus));
    assert.equal((await consumerState(bus)).num_redelivered, 0);
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
    assert.ok(await settled(bus));
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

  test("does not mistake a call that was cancelled at its other end for a cancelled run", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const stage = startStage(
      bus,
      testStage(async (_, { attempt }) => {
        if (attempt === 1) throw new AppError("CANCELLED", "the server hung up");
        return prepared();
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the outcome of the second try", async () => (await outcomes(bus, "r1")).length === 1);
    await stage.stop();
  });

  test("refuses an outcome that it has not declared", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const stage = startStage(
      bus,
      testStage(async () => create(RunFailedSchema)),
    );
    await requestRun(bus, "r1");
    const [failure] = await eventually(
      "the failure",
      async () => (await failures(bus, "r1")).length === 1 && failures(bus, "r1"),
    );
    assert.match(failure?.message ?? "", /not among its outcomes/);
    await stage.stop();
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
