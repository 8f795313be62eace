import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { DiscardPolicy, jetstreamManager, RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { deadLetterStream, eventStream, registryStream } from "../../lib/bus/subjects.ts";
import { AppError } from "../../lib/errors.ts";
import { eventually, openTestBus, requestRun } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

suite("the streams", { concurrency: 2 }, () => {
  test("are created by many services at once, each as it should be", async (t) => {
    const nats = await startNats(t);
    const buses = await Promise.all(Array.from({ length: 8 }, () => openTestBus(nats)));
    const [bus] = buses;
    assert.ok(bus);
    const config = async (name: string) => (await bus.jsm.streams.info(name)).config;
    for (const name of [eventStream, registryStream, deadLetterStream]) {
      const { storage, retention, duplicate_window, num_replicas } = await config(name);
      assert.deepEqual([storage, retention, num_replicas], [StorageType.File, RetentionPolicy.Limits, 1]);
      assert.equal(duplicate_window, 3_600 * 1e9);
    }
    assert.equal((await config(eventStream)).discard, DiscardPolicy.New, "a full log of runs refuses");
    assert.equal((await config(registryStream)).max_age, 0, "the registry is kept for good");
    await Promise.all(buses.map((each) => each[Symbol.asyncDispose]()));
  });

  test("of an older version are brought up to date, with what they hold", async (t) => {
    const nats = await startNats(t);
    const nc = await connect({ servers: nats.url });
    const jsm = await jetstreamManager(nc);
    const older = { max_msgs: 5, max_bytes: 512 * 1024, discard: DiscardPolicy.Old };
    await jsm.streams.add({ name: eventStream, subjects: ["millrace.v1.>"], ...older });
    nc.publish("millrace.v1.r0.run.requested", "old");
    await nc.flush();
    await using bus = await openTestBus(nats, { maxEventBytes: 2 * 1024 ** 2 });
    const { config, state } = await jsm.streams.info(eventStream);
    assert.deepEqual([config.discard, config.max_bytes, state.messages], [DiscardPolicy.New, 2 * 1024 ** 2, 1]);
    assert.equal((await requestRun(bus, "r1")).sequence, 2);
    await nc.close();
  });

  test("keep limits that an operator has raised, also to none", async (t) => {
    const nats = await startNats(t);
    const start = async (maxEventBytes: number) => {
      await using bus = await openTestBus(nats, { maxEventBytes });
      return (await bus.jsm.streams.info(eventStream)).config;
    };
    const { max_age } = await start(2 * 1024 ** 2);
    assert.equal((await start(1024 ** 2)).max_bytes, 2 * 1024 ** 2);
    assert.equal((await start(3 * 1024 ** 2)).max_bytes, 3 * 1024 ** 2);

    await using bus = await openTestBus(nats);
    await bus.jsm.streams.update(eventStream, { max_bytes: -1, max_age: 2 * max_age });
    const config = await start(1024 ** 2);
    assert.deepEqual([config.max_bytes, config.max_age], [-1, 2 * max_age]);
  });

  test("with more replicas than servers are refused with what to do, and no connection stays open", async (t) => {
    const nats = await startNats(t);
    await assert.rejects(openTestBus(nats, { replicas: 3 }), (thrown) => {
      assert.ok(thrown instanceof AppError);
      assert.equal(thrown.code, "CONFIGURATION_INVALID");
      assert.match(thrown.message, /replicas > 1 not supported.*set replicas to 1/);
      return true;
    });
    await eventually("the connection is closed", async () => {
      const response = await fetch(`${nats.monitorUrl}/connz`);
      return ((await response.json()) as { num_connections: number }).num_connections === 0;
    });
  });

  test("are there again after the server came back with an empty store", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await bus.jsm.streams.delete(eventStream);
    await nats.restart();
    await eventually("the connection is back", () => bus.connection.connected());
    assert.equal((await requestRun(bus, "r1")).sequence, 1);
  });
});
