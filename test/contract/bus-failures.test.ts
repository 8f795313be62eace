import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { headers } from "@nats-io/nats-core";
import { DatasetProgressedSchema, type RunFailed, RunFailedSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import { decodeHeaderValue } from "../../lib/bus/cloud-event.ts";
import { deadLetterHeaders } from "../../lib/bus/dead-letters.ts";
import { orderedPublisher } from "../../lib/bus/ordered-publisher.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { deadLetterStream, eventStream, eventSubject, runFilter } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import {
  eventually,
  isSettled,
  openTestBus,
  outcomes,
  prepared,
  requestRun,
  storedEvents,
  storedMessages,
  testStage,
} from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

const failures = async (bus: Bus, runId: string) =>
  (await storedEvents(bus, eventSubject(runId, "run.failed"))).map(({ message }) => message as RunFailed);

suite("a stage that cannot do its work", { concurrency: 6 }, () => {
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

  test("lets go of what is under a name that no run has, and keeps it without the headers for which there is no room", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const all = headers();
    const attributes = { id: "e1", source: "x", specversion: "1.0", type: "millrace.v1.RunRequested" };
    for (const [name, value] of Object.entries(attributes)) all.set(`Ce-${name}`, value);
    for (let header = 0; header < 50; header++) all.set(`x-${header}`, "y".repeat(1_000));
    const room = (bus.nc.info?.max_payload ?? 0) - 60_000;
    const data = new Uint8Array(room).fill(0xff);
    await bus.js.publish("millrace.v1.urn:1.run.requested", data, { headers: all });
    await requestRun(bus, "r2");
    const stage = startStage(
      bus,
      testStage(async () => prepared()),
    );
    await eventually("the next outcome", async () => (await outcomes(bus, "r2")).length === 1);
    await eventually("nothing is left to do", () => isSettled(bus));
    await stage.stop();
    const letters = await storedMessages(bus, "millrace.dead.v1.>", deadLetterStream);
    assert.deepEqual(
      letters.map(({ data, header }) => [data.length, header.get("Ce-id"), header.get("x-49")]),
      [[room, "e1", ""]],
    );
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
    await eventually("all is settled", () => isSettled(bus));
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
    await eventually("all is settled", () => isSettled(bus));
    await bus.jsm.consumers.delete(eventStream, "ingestion");
    await requestRun(bus, "good");
    await eventually("the stage goes on", async () => (await outcomes(bus, "good")).length === 1);
    await eventually("all is settled", () => isSettled(bus));
    await stage.stop();
    assert.equal(tries, 1);
    assert.equal((await failures(bus, "bad")).length, 1);
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

  test("stores nothing of a try after its failure, also not what was waiting for the server", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    let away = false;
    const stage = startStage(
      bus,
      testStage(async (_, context) => {
        const reports = orderedPublisher(context);
        await nats.stop();
        away = true;
        for (let done = 0; done < 50; done++) reports.publish(create(DatasetProgressedSchema), String(done));
        throw new AppError("DATASET_INVALID", "no images");
      }),
    );
    await requestRun(bus, "r1");
    await eventually("the server is away", () => away);
    await nats.restart();
    await eventually("the failure", async () => (await failures(bus, "r1")).length === 1);
    await eventually("all is settled", () => isSettled(bus));
    await stage.stop();
    const told = (await storedEvents(bus, runFilter("r1"))).map(({ message }) => message.$typeName);
    assert.equal(told.at(-1), "millrace.v1.RunFailed");
    assert.ok(told.length <= 3, "at most the one that was under way is stored beside request and failure");
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
});
