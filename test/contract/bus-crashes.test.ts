import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { suite, type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { RunFailed } from "../../gen/millrace/v1/events_pb.ts";
import { deadLetterHeaders } from "../../lib/bus/dead-letters.ts";
import { deadLetterStream, eventStream, eventSubject } from "../../lib/bus/subjects.ts";
import { eventually, openTestBus, requestRun, storedEvents, storedMessages, withSeed } from "../helpers/bus.ts";
import type { Begun, StageProcessSettings } from "../helpers/bus-stage-process.ts";
import { startNats } from "../helpers/nats-server.ts";

const program = new URL("../helpers/bus-stage-process.ts", import.meta.url);

interface StageProcess {
  readonly child: ChildProcess;
  readonly begun: Begun[];
  kill(): Promise<void>;
}

function startProcess(t: TestContext, settings: StageProcessSettings): StageProcess {
  const env = { ...process.env, STAGE_PROCESS: JSON.stringify(settings) };
  const child = fork(program, { env, execArgv: ["--import", "tsx"] });
  const exited = once(child, "exit");
  const begun: Begun[] = [];
  child.on("message", (message) => begun.push(message as Begun));
  const kill = async () => {
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await exited;
  };
  t.after(kill);
  return { child, begun, kill };
}

suite("a crash", { concurrency: 3 }, () => {
  test("of the consumer before the acknowledgement lets another one do the work, with its effects once", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const settings = { url: nats.url, ackWaitMs: 1_000, maxAttempts: 5, steps: 3 };
    const processes = [1, 2].map(() => startProcess(t, { ...settings, behaviour: "hang at first" }));
    await requestRun(bus, "r1");
    const first = await eventually("one process works", () => processes.find(({ begun }) => begun.length === 1));
    await first.kill();
    const outcome = eventSubject("r1", "dataset.prepared");
    await eventually("the outcome", async () => (await storedEvents(bus, outcome)).length === 1);
    const [second] = processes.filter((each) => each !== first);
    assert.deepEqual(first.begun, [{ runId: "r1", attempt: 1 }]);
    assert.deepEqual(second?.begun, [{ runId: "r1", attempt: 2 }]);
    const names = (await storedEvents(bus, eventSubject("r1", ">"))).map(({ message }) => message.$typeName);
    assert.equal(names.length, 5, `the request, three steps and the outcome: ${names}`);
  });

  test("that a message brings about each time ends with a dead letter, and the next message is served", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const settings: StageProcessSettings = { url: nats.url, ackWaitMs: 500, maxAttempts: 2, behaviour: "die" };
    const processes = [1, 2, 3].map(() => startProcess(t, settings));
    await requestRun(bus, "bad");
    await eventually("two processes died of it", () => {
      return processes.filter(({ child }) => child.signalCode === "SIGKILL").length === 2;
    });
    await requestRun(bus, "good");
    const outcome = eventSubject("good", "dataset.prepared");
    await eventually("the next outcome", async () => (await storedEvents(bus, outcome)).length === 1);
    const attempts = processes.flatMap(({ begun }) => begun).filter(({ runId }) => runId === "bad");
    assert.deepEqual(attempts.map(({ attempt }) => attempt).sort(), [1, 2]);
    const [failure, ...more] = await eventually("the failure", async () => {
      const failures = await storedEvents(bus, eventSubject("bad", "run.failed"));
      return failures.length > 0 && failures;
    });
    assert.equal(more.length, 0);
    const told = failure?.message as RunFailed | undefined;
    assert.equal(told?.code, "INTERNAL");
    assert.match(told.message, /did not survive 2 tries of run bad/);
    const [letter] = await storedMessages(bus, "millrace.dead.v1.ingestion.bad", deadLetterStream);
    assert.equal(letter?.header.get(deadLetterHeaders.attempts), "3");
  });

  test("at random of either instance and of the server leaves each effect there exactly once", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const runs = 40;
    const steps = 4;
    const settings: StageProcessSettings = {
      url: nats.url,
      ackWaitMs: 1_000,
      maxAttempts: 100,
      behaviour: "work",
      steps,
      stepMs: 12,
    };
    await withSeed(async (random) => {
      const processes = [startProcess(t, settings), startProcess(t, settings)];
      const requests = Promise.all(Array.from({ length: runs }, (_, index) => requestRun(bus, `r${index}`)));
      const done = async () => (await storedMessages(bus, eventSubject("*", "dataset.prepared"))).length === runs;
      for (let kills = 0; kills < 4; kills++) {
        const victim = random.below(2);
        const next = processes[victim];
        await eventually("the process works", async () => (next?.begun.length ?? 0) > 0 || (await done()));
        await delay(random.below(150));
        if (kills === 2) {
          await nats.kill();
          await nats.restart();
        } else {
          await next?.kill();
          processes[victim] = startProcess(t, settings);
        }
      }
      await requests;
      await eventually("every outcome", done, 30_000);
      const events = await storedEvents(bus, "millrace.v1.>");
      const counts = new Map<string, number>();
      for (const { subject, id } of events) counts.set(`${subject} ${id}`, (counts.get(`${subject} ${id}`) ?? 0) + 1);
      assert.deepEqual(
        [...counts].filter(([, count]) => count !== 1),
        [],
      );
      assert.equal(events.length, runs * (1 + steps + 1), "requests, steps and outcomes");
      await eventually("every message is settled", async () => {
        const { num_pending, num_ack_pending } = await bus.jsm.consumers.info(eventStream, "ingestion");
        return num_pending === 0 && num_ack_pending === 0;
      });
      assert.equal((await bus.jsm.streams.info(deadLetterStream)).state.messages, 0);
    });
  });
});
