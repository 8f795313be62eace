import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ArtifactSchema } from "../../gen/millrace/v1/artifact_pb.ts";
import { EvaluationReportSchema } from "../../gen/millrace/v1/evaluation_pb.ts";
import { LineageSchema } from "../../gen/millrace/v1/model_pb.ts";
import { registryStream, registrySubject } from "../../lib/bus/subjects.ts";
import type { ErrorCode } from "../../lib/errors.ts";
import { championOf } from "../../lib/registry/model-log.ts";
import { type ChangeOrigin, changeId, createRegistry, type NewVersion } from "../../lib/registry/registry.ts";
import { openTestBus, storedEvents } from "../helpers/bus.ts";
import { startNats } from "../helpers/nats-server.ts";

const from = (id: string, runId = ""): ChangeOrigin => ({ runId, cause: { id, originTraceparent: "" } });
const newVersion = (digest: string, name = "m"): NewVersion => ({
  name,
  digest,
  manifest: create(ArtifactSchema, { digest }),
  lineage: create(LineageSchema, { runId: "r1" }),
});
const isCode = (code: ErrorCode, message: RegExp) => ({ name: "AppError", code, message });

suite("the registry", { concurrency: 3 }, () => {
  test("numbers the versions of ten writers at once without a gap and without a double", async (t) => {
    const nats = await startNats(t);
    const buses = await Promise.all(Array.from({ length: 10 }, () => openTestBus(nats)));
    const given = await Promise.all(
      buses.map(async (bus, writer) => {
        const registry = createRegistry(bus);
        const numbers: number[] = [];
        for (let round = 0; round < 3; round++) {
          const { version } = await registry.register(newVersion(`d${writer}-${round}`), from(`c${writer}-${round}`));
          numbers.push(version);
        }
        return numbers;
      }),
    );
    const expected = Array.from({ length: 30 }, (_, index) => index + 1);
    assert.deepEqual(
      given.flat().sort((a, b) => a - b),
      expected,
    );
    const [bus] = buses;
    assert.ok(bus);
    const { versions } = await createRegistry(bus).read("m");
    assert.deepEqual([...versions.keys()], expected);
    assert.equal(new Set([...versions.values()].map(({ digest }) => digest)).size, 30);
    await Promise.all(buses.map((each) => each[Symbol.asyncDispose]()));
  });

  test("makes a change that is asked for again only once, by whoever and however late", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    const origin = from("c1", "r1");
    const first = await registry.register(newVersion("d1"), origin);
    await registry.register(newVersion("d2"), from("c2"));
    const registries = Array.from({ length: 4 }, () => createRegistry(bus));
    const again = await Promise.all(registries.map((each) => each.register(newVersion("d1"), origin)));
    assert.deepEqual(
      again.map(({ version, digest }) => [version, digest]),
      again.map(() => [first.version, "d1"]),
    );
    const report = create(EvaluationReportSchema, { accuracy: 0.9 });
    await registry.recordEvaluation("m", 1, report, origin);
    await registry.recordEvaluation("m", 1, report, origin);
    const move = { modelName: "m", version: 1, expectedVersion: 0, reason: "better" };
    const moved = await registry.moveAlias(move, origin);
    await registry.moveAlias({ ...move, version: 2, expectedVersion: 1 }, from("c3"));
    await registry.moveAlias({ ...move, expectedVersion: 2, reason: "back" }, from("c4"));
    const movedAgain = await registry.moveAlias(move, origin);
    assert.deepEqual([movedAgain.reason, movedAgain.movedAt], ["better", moved.movedAt], "its own move is told");
    const events = await storedEvents(bus, registrySubject("m"), registryStream);
    assert.deepEqual(
      events.map(({ message }) => message.$typeName.replace("millrace.v1.", "")),
      [
        "ModelVersionRegistered",
        "ModelVersionRegistered",
        "ModelVersionEvaluated",
        "ModelAliasMoved",
        "ModelAliasMoved",
        "ModelAliasMoved",
      ],
    );
    const log = await registry.read("m");
    assert.ok(log.changes.has(changeId(origin, "millrace.v1.ModelAliasMoved")));
  });

  test("keeps changes of one cause to several models and aliases apart", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    const origin = from("c1");
    for (const name of ["a", "b"]) {
      assert.equal((await registry.register(newVersion("d1", name), origin)).version, 1);
      for (const alias of ["champion", "shadow"]) {
        assert.equal(
          (await registry.moveAlias({ modelName: name, alias, version: 1, reason: "" }, origin)).alias,
          alias,
        );
      }
    }
    assert.deepEqual(Object.fromEntries((await registry.read("b")).aliases), { champion: 1, shadow: 1 });
  });

  test("is read as soon as the broker is back by who is patient, and by nobody else", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats, { publishTimeoutMs: 100 });
    const registry = createRegistry(bus);
    await registry.register(newVersion("d1"), from("c1"));
    await nats.stop();
    const patient = registry.read("m", { patient: true });
    await assert.rejects(registry.read("m"), isCode("BROKER_UNAVAILABLE", /could not be read/));
    await nats.restart();
    assert.equal((await patient).versions.size, 1);
  });

  test("moves an alias only from where it is expected, and one of two that race", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    await using otherBus = await openTestBus(nats);
    const registry = createRegistry(bus);
    for (const digest of ["d1", "d2", "d3"]) await registry.register(newVersion(digest), from(digest));
    const first = await registry.moveAlias(
      { modelName: "m", version: 1, expectedVersion: 0, reason: "first" },
      from("m1", "r1"),
    );
    assert.deepEqual([first.previousVersion, first.version, first.runId], [0, 1, "r1"]);
    const late = registry.moveAlias({ modelName: "m", version: 2, expectedVersion: 0, reason: "late" }, from("m2"));
    await assert.rejects(late, isCode("CONFLICT", /champion of model m names version 1, not 0; look again/));
    const results = await Promise.allSettled(
      [registry, createRegistry(otherBus)].map((each, index) =>
        each.moveAlias(
          { modelName: "m", version: 2 + index, expectedVersion: 1, reason: "race" },
          from(`race${index}`),
        ),
      ),
    );
    assert.deepEqual(results.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    const lost = results.find(({ status }) => status === "rejected") as PromiseRejectedResult;
    assert.equal(lost.reason.code, "CONFLICT");
    const whatever = await registry.moveAlias({ modelName: "m", version: 1, reason: "back" }, from("m3"));
    assert.ok(whatever.previousVersion === 2 || whatever.previousVersion === 3);
  });

  test("refuses a version that is not there, and a name that is no name", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    await registry.register(newVersion("d1"), from("c1"));
    const move = registry.moveAlias({ modelName: "m", version: 9, reason: "" }, from("c2"));
    await assert.rejects(move, isCode("MODEL_NOT_FOUND", /model "m" has no version "9"/));
    const report = create(EvaluationReportSchema);
    const evaluation = registry.recordEvaluation("nobody", 1, report, from("c3"));
    await assert.rejects(evaluation, isCode("MODEL_NOT_FOUND", /model "nobody" has no version "1"/));
    for (const name of ["*", "a.b", ""])
      await assert.rejects(registry.read(name), isCode("INVALID_REQUEST", /is no model name/));
  });

  test("is rebuilt from its log, after a restart of the server too", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    await registry.register(newVersion("d1"), from("c1"));
    await registry.recordEvaluation("m", 1, create(EvaluationReportSchema, { accuracy: 0.8 }), from("c2"));
    await registry.moveAlias({ modelName: "m", version: 1, reason: "good" }, from("c3"));
    await registry.register(newVersion("other", "n"), from("c1"));
    const live = await registry.read("m");
    await nats.kill();
    await nats.restart();
    assert.deepEqual(await registry.read("m"), live, "a reader that was there");
    assert.deepEqual(await createRegistry(bus).read("m"), live, "one that reads from the beginning");
    assert.equal(championOf(live)?.evaluation?.accuracy, 0.8);
  });

  test("takes changes after a message in its log that is no change", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    await bus.js.publish(registrySubject("m"), "garbage");
    assert.equal((await registry.register(newVersion("d1"), from("c1"))).version, 1);
    await bus.js.publish(registrySubject("m"), "garbage");
    assert.equal((await registry.register(newVersion("d2"), from("c2"))).version, 2);
  });

  test("begins anew when its stream was made anew", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    await registry.register(newVersion("d1"), from("c1"));
    await registry.register(newVersion("d2"), from("c2"));
    await bus.jsm.streams.delete(registryStream);
    assert.equal((await registry.register(newVersion("d3"), from("c3"))).version, 1);
  });

  test("goes back one champion at a time, and not beyond the first", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    for (const n of [1, 2, 3]) await registry.register(newVersion(`d${n}`), from(`v${n}`));
    for (const version of [1, 2, 3])
      await registry.moveAlias({ modelName: "m", version, reason: "better" }, from(`m${version}`));
    const back = (id: string, expectedVersion?: number) =>
      registry.rollBack({ modelName: "m", reason: "worse", expectedVersion }, from(id));
    await assert.rejects(back("b0", 2), isCode("CONFLICT", /names version 3, not 2/));
    assert.deepEqual(
      [(await back("b1", 3)).version, (await back("b1")).version],
      [2, 2],
      "the same request goes back once",
    );
    assert.equal((await back("b2")).version, 1);
    await assert.rejects(back("b3"), isCode("MODEL_NOT_FOUND", /no champion before/));
    await registry.moveAlias({ modelName: "m", version: 3, reason: "after all" }, from("m4"));
    assert.equal((await back("b4")).version, 1);
    assert.equal(championOf(await registry.read("m"))?.version, 1);
  });

  test("gives canary and shadow shares, takes them away, and ends them when their version becomes champion", async (t) => {
    const nats = await startNats(t);
    await using bus = await openTestBus(nats);
    const registry = createRegistry(bus);
    for (const n of [1, 2, 3]) await registry.register(newVersion(`d${n}`), from(`v${n}`));
    let moves = 0;
    const move = (alias: string, version: number, share?: number) =>
      registry.moveAlias({ modelName: "m", alias, version, share, reason: "tried" }, from(`m${moves++}`));
    const named = async () => {
      const { aliases, shares } = await registry.read("m");
      return [Object.fromEntries(aliases), Object.fromEntries(shares)];
    };
    await move("champion", 1);
    assert.equal((await move("canary", 2)).share, 0.1);
    await move("shadow", 3, 0.5);
    await move("stable", 1);
    const all = { champion: 1, canary: 2, shadow: 3, stable: 1 };
    assert.deepEqual(await named(), [all, { canary: 0.1, shadow: 0.5 }]);
    await move("champion", 2);
    assert.deepEqual(await named(), [{ champion: 2, shadow: 3, stable: 1 }, { shadow: 0.5 }]);
    await move("shadow", 0);
    assert.deepEqual(await named(), [{ champion: 2, stable: 1 }, {}]);
    await assert.rejects(move("shadow", 0), isCode("MODEL_NOT_FOUND", /no alias shadow/));
    await assert.rejects(move("champion", 0), isCode("INVALID_REQUEST", /without a champion/));
    await assert.rejects(move("stable", 1, 0.5), isCode("INVALID_REQUEST", /canary and shadow do/));
    await assert.rejects(move("canary", 3, 1.5), isCode("INVALID_REQUEST", /from 0 to 1/));
  });
});
