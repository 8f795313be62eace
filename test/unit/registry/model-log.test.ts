import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { create, type Message } from "@bufbuild/protobuf";
import {
  ModelAliasMovedSchema,
  ModelVersionEvaluatedSchema,
  ModelVersionRegisteredSchema,
  RunRequestedSchema,
} from "../../../gen/millrace/v1/events_pb.ts";
import type { ReceivedEvent } from "../../../lib/bus/cloud-event.ts";
import {
  applyChange,
  championOf,
  emptyModelLog,
  type ModelLog,
  modelFromLog,
} from "../../../lib/registry/model-log.ts";

const time = new Date("2026-11-22T10:00:00Z");

/** The log after these changes, each with a cause of its own. */
function replay(...messages: Message[]): ModelLog {
  return messages.reduce<ModelLog>((log, message, index) => {
    const event: ReceivedEvent = {
      id: `e${index}`,
      source: "tests",
      type: message.$typeName,
      time,
      correlationId: "r1",
      causationId: `c${index}`,
      originTraceparent: "",
      message,
      subject: "millrace.registry.v1.m",
      sequence: 10 + index,
      headers: undefined,
    };
    return applyChange(log, event);
  }, emptyModelLog("m"));
}

const registered = (version: number) => create(ModelVersionRegisteredSchema, { version: { name: "m", version } });
const evaluated = (version: number, accuracy: number) =>
  create(ModelVersionEvaluatedSchema, { version, report: { accuracy } });
const moved = (version: number, alias = "champion") =>
  create(ModelAliasMovedSchema, { move: { name: "m", alias, version } });

suite("the log of a model", () => {
  test("tells versions, what was measured, and every move of an alias in order", () => {
    const log = replay(registered(1), evaluated(1, 0.9), moved(1), registered(2), moved(2), moved(1, "shadow"));
    assert.deepEqual([...log.versions.keys()], [1, 2]);
    assert.equal(log.versions.get(1)?.evaluation?.accuracy, 0.9);
    assert.equal(log.versions.get(1)?.registeredAt?.seconds, BigInt(time.getTime() / 1000));
    assert.deepEqual(
      log.moves.map(({ alias, version }) => [alias, version]),
      [
        ["champion", 1],
        ["champion", 2],
        ["shadow", 1],
      ],
    );
    assert.equal(championOf(log)?.version, 2);
    assert.equal(log.lastSequence, 15);
    const { name, latestVersion, aliases } = modelFromLog(log);
    assert.deepEqual([name, latestVersion, aliases], ["m", 2, { champion: 2, shadow: 1 }]);
  });

  test("is left as it was by an event that is no change, which counts all the same", () => {
    const before = replay(registered(1));
    const after = replay(registered(1), create(RunRequestedSchema), evaluated(7, 0.5), create(ModelAliasMovedSchema));
    assert.deepEqual({ ...after, lastSequence: 0 }, { ...before, lastSequence: 0 });
    assert.equal(after.lastSequence, 13);
  });

  test("of a model that nobody knows has no champion", () => {
    assert.equal(championOf(emptyModelLog("m")), undefined);
    assert.equal(modelFromLog(emptyModelLog("m")).latestVersion, 0);
  });
});
