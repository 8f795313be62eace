import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { DatasetProgressedSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { Bus } from "../../lib/bus/bus.ts";
import type { ReceivedEvent } from "../../lib/bus/cloud-event.ts";
import { followEvents } from "../../lib/bus/follow.ts";
import { eventStream, eventSubject, runFilter } from "../../lib/bus/subjects.ts";
import { eventually, openTestBus, requestRun, storedEvents } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

/** Follows a subject and keeps what comes. */
function follow(bus: Bus, filter: string, onEvent: (event: ReceivedEvent) => void = () => {}) {
  const controller = new AbortController();
  const events: ReceivedEvent[] = [];
  const caughtUpAfter: number[] = [];
  const restartedAfter: number[] = [];
  const ended = followEvents(bus, {
    stream: eventStream,
    filter,
    onEvent: (event) => {
      onEvent(event);
      events.push(event);
    },
    onCaughtUp: () => caughtUpAfter.push(events.length),
    onRestart: () => restartedAfter.push(events.length),
    signal: controller.signal,
  });
  return {
    events,
    caughtUpAfter,
    restartedAfter,
    stop: async () => {
      controller.abort();
      await ended;
    },
  };
}

const publishProgress = (bus: Bus, runId: string, from: number, to: number) =>
  bus.publishAll(
    Array.from({ length: to - from }, (_, index) => [
      create(DatasetProgressedSchema, { progress: { done: BigInt(from + index) } }),
      { runId, key: String(from + index) },
    ]),
  );

const sequences = (events: readonly ReceivedEvent[]) => events.map(({ sequence }) => sequence);

suite("following a stream", { concurrency: 3 }, () => {
  test("hands over what is stored, says that it has caught up, and goes on with what comes", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await publishProgress(bus, "r1", 0, 250);
    await requestRun(bus, "r2");
    const following = follow(bus, runFilter("r1"));
    await eventually("it caught up", () => following.caughtUpAfter.length > 0);
    assert.deepEqual(following.caughtUpAfter, [250]);
    await publishProgress(bus, "r1", 250, 300);
    await eventually("the new ones", () => following.events.length === 300);
    await following.stop();
    assert.deepEqual(sequences(following.events), sequences(await storedEvents(bus, runFilter("r1"))));
    assert.deepEqual(following.caughtUpAfter, [250], "it caught up once");
  });

  test("of a subject on which nothing is stored has caught up at once", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const following = follow(bus, eventSubject("*", "run.cancelled"));
    await eventually("it caught up", () => following.caughtUpAfter.length > 0);
    assert.deepEqual(following.caughtUpAfter, [0]);
    await following.stop();
  });

  test("is in order and without repetition while the server is killed again and again", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const following = follow(bus, runFilter("r1"));
    for (let round = 0; round < 3; round++) {
      await publishProgress(bus, "r1", round * 100, round * 100 + 100);
      await nats.kill();
      await nats.restart();
    }
    await eventually("all of them", () => following.events.length >= 300);
    await following.stop();
    assert.deepEqual(sequences(following.events), sequences(await storedEvents(bus, runFilter("r1"))));
    assert.equal(following.caughtUpAfter.length, 1);
    assert.deepEqual(following.restartedAfter, [], "it is the same stream");
  });

  test("passes over a message that is no event", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await bus.js.publish(eventSubject("r1", "run.requested"), "garbage");
    await requestRun(bus, "r1");
    const following = follow(bus, runFilter("r1"));
    await eventually("it caught up", () => following.caughtUpAfter.length > 0);
    await following.stop();
    assert.deepEqual(sequences(following.events), [2]);
  });

  test("hands an event over again when its receiver threw", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await publishProgress(bus, "r1", 0, 5);
    let failures = 0;
    const following = follow(bus, runFilter("r1"), ({ sequence }) => {
      if (sequence === 3 && failures++ === 0) throw new Error("not now");
    });
    await eventually("all of them", () => following.events.length === 5);
    await following.stop();
    assert.deepEqual(sequences(following.events), [1, 2, 3, 4, 5]);
  });

  test("begins anew when the stream was made anew", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await publishProgress(bus, "r1", 0, 10);
    const following = follow(bus, runFilter("*"));
    await eventually("the old ones", () => following.events.length === 10);
    await bus.jsm.streams.delete(eventStream);
    await requestRun(bus, "r2");
    await eventually("the new one", () => following.events.length === 11);
    await following.stop();
    assert.deepEqual(following.restartedAfter, [10]);
  });

  test("begins anew when the new stream is as long as the old one before anybody has looked", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await publishProgress(bus, "r1", 0, 10);
    const following = follow(bus, runFilter("*"));
    await eventually("the old ones", () => following.events.length === 10);
    await bus.jsm.streams.delete(eventStream);
    await publishProgress(bus, "r2", 0, 20);
    await eventually("the new ones", () => following.events.length === 30);
    await following.stop();
    assert.deepEqual(sequences(following.events.slice(10)), sequences(await storedEvents(bus, runFilter("r2"))));
    assert.deepEqual([following.restartedAfter, following.caughtUpAfter], [[10], [10]]);
  });

  test("leaves neither a subscription nor a consumer when it is aborted, in the middle of an event too", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await publishProgress(bus, "r1", 0, 200);
    const subscriptions = async () => {
      const response = await fetch(`${nats.monitorUrl}/connz?subs=true`);
      const { connections } = (await response.json()) as { connections: { subscriptions_list?: string[] }[] };
      return connections.flatMap(({ subscriptions_list = [] }) => subscriptions_list).length;
    };
    const before = await eventually("the requests' own subscription", subscriptions);
    const idle = follow(bus, runFilter("r1"));
    await eventually("it caught up", () => idle.caughtUpAfter.length > 0);
    await idle.stop();
    const controller = new AbortController();
    let handed = 0;
    await followEvents(bus, {
      stream: eventStream,
      filter: runFilter("r1"),
      onEvent: () => {
        handed++;
        controller.abort();
      },
      signal: controller.signal,
    });
    assert.equal(handed, 1);
    await eventually("no subscription is left", async () => (await subscriptions()) === before);
    await eventually("no consumer is left", async () => {
      return (await bus.jsm.streams.info(eventStream)).state.consumer_count === 0;
    });
  });
});
