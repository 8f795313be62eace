import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { inspect } from "node:util";
import { create, type Message } from "@bufbuild/protobuf";
import { DatasetProgressedSchema, RunRequestedSchema } from "../../gen/millrace/v1/events_pb.ts";
import { openBus, type PublishOptions } from "../../lib/bus/bus.ts";
import { eventIdFrom } from "../../lib/bus/cloud-event.ts";
import { startStage } from "../../lib/bus/stage.ts";
import { eventStream, eventSubject, runFilter } from "../../lib/bus/subjects.ts";
import { AppError, type ErrorCode } from "../../lib/errors.ts";
import { createLogger } from "../../lib/log.ts";
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

/** Progress of a run, one event for each key. */
function progress(runId: string, count: number): (readonly [Message, PublishOptions])[] {
  return Array.from({ length: count }, (_, index) => [
    create(DatasetProgressedSchema, { progress: { done: BigInt(index) } }),
    { runId, key: String(index) },
  ]);
}

const isError = (code: ErrorCode, message: RegExp) => (thrown: unknown) => {
  assert.ok(thrown instanceof AppError, String(thrown));
  assert.equal(thrown.code, code);
  assert.match(thrown.message, message);
  return true;
};

suite("publishing", { concurrency: 3 }, () => {
  test("stores an event once, however often the same cause publishes it", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const first = await requestRun(bus, "r1");
    const second = await requestRun(bus, "r1");
    assert.deepEqual(second, { id: first.id, sequence: first.sequence, duplicate: true });
    assert.equal(first.id, eventIdFrom("r1", "run.requested"));
    const cause = { id: first.id, originTraceparent: "" };
    const ids = new Set([first.id]);
    for (const key of ["1", "2", "2"]) {
      ids.add((await bus.publish(create(DatasetProgressedSchema), { runId: "r1", cause, key })).id);
    }
    assert.equal(ids.size, 3, "a key tells events of one cause apart");
    assert.equal((await storedMessages(bus, runFilter("r1"))).length, 3);
  });

  test("loses no event and stores none twice when the server is killed while hundreds are under way", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const count = 600;
    let given = 0;
    const events = function* () {
      for (const event of progress("r1", count)) {
        given++;
        yield event;
      }
    };
    const published = bus.publishAll(events(), 64);
    await eventually("a third is under way", () => given > count / 3);
    await nats.kill();
    await nats.restart();
    const results = await published;
    assert.equal(results.length, count);
    const stored = await storedEvents(bus, runFilter("r1"));
    assert.equal(stored.length, count);
    assert.equal(new Set(stored.map(({ id }) => id)).size, count);
    const byId = new Map(stored.map(({ id, sequence }) => [id, sequence]));
    for (const { id, sequence } of results) assert.equal(byId.get(id), sequence, "each was told where it is stored");
  });

  test("refuses what does not fit into a full stream, loses nothing else, and goes on when there is space", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats, { maxEventBytes: 64 * 1024 });
    await assert.rejects(bus.publishAll(progress("r1", 1_000), 16), isError("STREAM_FULL", /maximum bytes exceeded/));
    const kept = await storedEvents(bus, runFilter("r1"));
    assert.ok(kept.length > 50 && kept.length < 1_000);
    const expected = progress("r1", kept.length).map(([, { key }]) => eventIdFrom("r1", "dataset.progressed", key));
    assert.deepEqual(
      kept.map(({ id }) => id),
      expected,
      "the stream holds the first ones, without a gap",
    );
    await assert.rejects(requestRun(bus, "r2"), isError("STREAM_FULL", /raise the stream's limits/));
    await bus.jsm.streams.purge(eventStream, { filter: runFilter("r1") });
    assert.equal((await requestRun(bus, "r2")).duplicate, false);
  });

  test("holds a stage's outcome until a full stream has space, without using up its tries", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats, { maxEventBytes: 64 * 1024 });
    let tries = 0;
    let fill = async () => {};
    const stage = startStage(
      bus,
      testStage(async (_, { runId }) => {
        if (runId !== "r1") return prepared();
        tries++;
        await fill();
        return prepared();
      }),
    );
    fill = async () => void (await bus.publishAll(progress("filler", 1_000), 16).catch(() => undefined));
    await requestRun(bus, "r1");
    let requests = 0;
    await eventually("the stream is full", async () => {
      const error = await requestRun(bus, `more-${requests++}`).then(() => undefined, AppError.from);
      return error?.code === "STREAM_FULL";
    });
    await bus.jsm.streams.purge(eventStream, { filter: runFilter("filler") });
    await eventually(
      "the outcome",
      async () => (await storedEvents(bus, eventSubject("r1", "dataset.prepared"))).length === 1,
    );
    await stage.stop();
    assert.equal(tries, 1);
  });

  test("names what is wrong with an event that no waiting would mend", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const request = create(RunRequestedSchema);
    const large = create(RunRequestedSchema, { spec: { modelName: "x".repeat(2 ** 21) } });
    await assert.rejects(bus.publish(large, { runId: "r1" }), isError("EVENT_INVALID", /r1.*max_payload/));
    for (const runId of ["", "a.b", "*", "a b", ">"]) {
      await assert.rejects(bus.publish(request, { runId }), isError("INVALID_REQUEST", /is no run id/));
    }
    const noEvent = { $typeName: "millrace.v1.RunSpec" } as Message;
    await assert.rejects(bus.publish(noEvent, { runId: "r1" }), isError("EVENT_INVALID", /is not an event/));
    await assert.rejects(bus.publishAll([], 0), isError("INVALID_REQUEST", /window/));
  });

  test("says so when it may not publish", async (t) => {
    const extraConfig = `authorization { users: [ { user: u, password: p, permissions: {
      publish: { deny: ["millrace.v1.>"] } } } ] }`;
    const nats = await startNats(t, { extraConfig });
    await using bus = await openTestBus({ url: nats.url.replace("://", "://u:p@") });
    await assert.rejects(requestRun(bus, "r1"), isError("CONFIGURATION_INVALID", /Permissions Violation/i));
    for (const login of ["u:secret", "u:secret/p", "u:p@secret", "u:%73ecret"]) {
      const wrong = openTestBus({ url: nats.url.replace("://", `://${login}@`) });
      await assert.rejects(wrong, (thrown) => {
        assert.ok(!inspect(thrown, { depth: 0 }).includes("secret"));
        return isError("CONFIGURATION_INVALID", /refuses the credentials/)(thrown);
      });
    }
    const noEscape = openTestBus({ url: nats.url.replace("://", "://u:100%@") });
    await assert.rejects(noEscape, isError("CONFIGURATION_INVALID", /write % as %25/));
  });

  test("takes a password with @ and / in it", async (t) => {
    const extraConfig = 'authorization { users: [ { user: u, password: "p@ss/word" } ] }';
    const nats = await startNats(t, { extraConfig });
    await using bus = await openTestBus({ url: nats.url.replace("://", "://u:p@ss/word@") });
    await requestRun(bus, "r1");
  });

  test("gives up with BROKER_UNAVAILABLE at its deadline, and at once when it is aborted", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats, { publishTimeoutMs: 300 });
    await nats.kill();
    const controller = new AbortController();
    const reason = new AppError("CANCELLED", "no longer wanted");
    const patient = bus.publish(create(RunRequestedSchema), { runId: "r1", patient: true, signal: controller.signal });
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(patient, (thrown) => thrown === reason);
    await assert.rejects(requestRun(bus, "r1"), isError("BROKER_UNAVAILABLE", /r1 could not be stored|on millrace/));
  });

  test("makes a stream that was deleted again, and says so when there is no JetStream", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await requestRun(bus, "r1");
    await bus.jsm.streams.delete(eventStream);
    assert.equal((await requestRun(bus, "r2")).sequence, 1);
    const plain = await startNats(t, {
      extraConfig: "system_account: A, no_auth_user: u, accounts: { A: {}, B: { users: [{ user: u, password: p }] } }",
    });
    await assert.rejects(openTestBus(plain), isError("CONFIGURATION_INVALID", /runs without JetStream; start it with/));
  });

  test("names the address when there is no server", async () => {
    const logger = createLogger({ service: "tests", level: "silent" });
    const opened = openBus({ url: "nats://127.0.0.1:1", service: "tests", logger });
    await assert.rejects(opened, isError("BROKER_UNAVAILABLE", /no NATS server answers at nats:\/\/127\.0\.0\.1:1/));
  });

  test("closes within its limit when the server hangs", async (t) => {
    const nats = await startNats(t);
    const bus = await openTestBus(nats);
    process.kill(nats.pid, "SIGSTOP");
    const before = performance.now();
    await bus[Symbol.asyncDispose]();
    assert.ok(performance.now() - before < 4_000);
    process.kill(nats.pid, "SIGCONT");
  });
});
