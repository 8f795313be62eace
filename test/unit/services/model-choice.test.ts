/** Which version answers: aliases, numbers, digests, a canary's share, a shadow's copies, and what is kept in memory. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { choose, type ModelChoice, withModel } from "../../../services/prediction/answering.ts";
import { takesCanary } from "../../../services/prediction/routing.ts";
import type { ShadowResult } from "../../../services/prediction/shadow.ts";
import { eventually } from "../../helpers/bus.ts";
import { type ServingOptions, startServing, type TestServing } from "../../helpers/served-model.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

const batching = { maxBatchSize: 8, maxDelayMs: 0, maxQueueLength: 1_000, maxWaitMs: 60_000 };
const pixels = () => Promise.resolve(new Uint8Array(16 * 16 * 3).fill(100));

async function start(t: TestContext, options: Partial<ServingOptions>): Promise<TestServing> {
  const serving = await startServing(await tempFolder(t), { batching, ...options });
  t.after(() => serving[Symbol.asyncDispose]());
  return serving;
}

const chosen = (serving: TestServing, choice: ModelChoice): Promise<number> =>
  withModel(serving, choice, async ({ version }) => version.version);

test("a version is named by number, by alias or by digest, and loaded when it is named first", async (t) => {
  const serving = await start(t, { versions: 3, aliases: { best: 2 } });
  const { log, models } = serving.deployment;
  const third = log.versions.get(3);
  assert.ok(third);
  assert.equal(models.state(third).kind, "unloaded");
  assert.equal(await chosen(serving, {}), 1);
  assert.equal(await chosen(serving, { selector: { case: "version", value: 3 } }), 3);
  assert.equal(models.state(third).kind, "ready");
  assert.equal(await chosen(serving, { selector: { case: "alias", value: "best" } }), 2);
  assert.equal(await chosen(serving, { selector: { case: "digest", value: third.digest } }), 3);
  for (const selector of [
    { case: "version", value: 4 },
    { case: "alias", value: "worst" },
    { case: "digest", value: `sha256:${"0".repeat(64)}` },
  ] as const) {
    await assert.rejects(chosen(serving, { selector }), { code: "MODEL_NOT_FOUND", message: /ListModelVersions/ });
  }
  serving.withdraw("champion");
  await assert.rejects(chosen(serving, {}), { code: "MODEL_NOT_READY" });
});

test("requests of one key stay with one version, a larger share keeps those of a smaller one, and shares are kept", () => {
  const keys = Array.from({ length: 20_000 }, (_, index) => `user-${index}`);
  const canary = { name: "test", version: 7 };
  const taken = (share: number, version = canary) => new Set(keys.filter((key) => takesCanary(key, version, share)));
  const [none, some, more, all] = [taken(0), taken(0.1), taken(0.3), taken(1)];
  assert.deepEqual([none.size, all.size], [0, keys.length]);
  // Five standard deviations of a binomial distribution.
  assert.ok(Math.abs(some.size - 2_000) < 5 * Math.sqrt(20_000 * 0.1 * 0.9), `${some.size} of 20000`);
  assert.deepEqual(taken(0.1), some);
  assert.ok([...some].every((key) => more.has(key)));
  const others = taken(0.1, { name: "test", version: 8 });
  const common = [...some].filter((key) => others.has(key)).length;
  assert.ok(common < 400, `${common} keys of 2000 try out the next canary too`);
});

test("the canary answers its share, and always for those who name it", async (t) => {
  const serving = await start(t, { versions: 2, aliases: { canary: 2 }, shares: { canary: 0.5 } });
  const keys = Array.from({ length: 200 }, (_, index) => `user-${index}`);
  const first = await Promise.all(keys.map((routingKey) => chosen(serving, { routingKey })));
  const second = await Promise.all(keys.map((routingKey) => chosen(serving, { routingKey })));
  assert.deepEqual(second, first);
  const share = first.filter((version) => version === 2).length / keys.length;
  assert.ok(share > 0.3 && share < 0.7, `${share} went to the canary`);
  assert.equal(await chosen(serving, { selector: { case: "alias", value: "canary" } }), 2);
  serving.withdraw("canary");
  assert.deepEqual(new Set(await Promise.all(keys.map((routingKey) => chosen(serving, { routingKey })))), new Set([1]));
});

test("the shadow is asked what the champion was asked, and nobody gets its answer", async (t) => {
  const serving = await start(t, { versions: 2, aliases: { shadow: 2 }, shares: { shadow: 1 } });
  const results: [number, number, ShadowResult][] = [];
  const answers = {
    ...serving.answers,
    noteShadow: (model: { version: { version: number } }, shadow: number, result: ShadowResult) => {
      results.push([model.version.version, shadow, result]);
    },
  };
  const dependencies = { ...serving, answers };
  const classify = (choice: ModelChoice = {}) =>
    withModel(dependencies, choice, async (model) => (await model.classify(pixels)).output);
  const answer = await classify();
  await eventually("the shadow has answered", () => results.length === 1);
  const alone = await classify({ selector: { case: "version", value: 2 } });
  const differences = alone.probabilities.map((value, index) => Math.abs(value - (answer.probabilities[index] ?? 0)));
  const [[champion, shadow, result] = []] = results;
  assert.deepEqual([champion, shadow], [1, 2]);
  assert.ok(result && Math.abs(result.maxDifference - Math.max(...differences)) < 1e-5);
  assert.match(answer.predictionId, /^1-/);
  assert.equal(results.length, 1, "a request that names a version is not mirrored");
});

test("versions that no alias names leave memory, the one used longest ago first, and never while they answer", async (t) => {
  const probe = await start(t, {});
  const { memoryBytes = 0 } = probe.deployment.live("champion") ?? {};
  const serving = await start(t, { versions: 4, cacheBytes: Math.floor(2.5 * memoryBytes) });
  const { models, log } = serving.deployment;
  const states = () => [2, 3, 4].map((number) => models.state(log.versions.get(number) as never).kind);
  const use = (value: number) => chosen(serving, { selector: { case: "version", value } });
  await use(2);
  await use(3);
  assert.deepEqual(states(), ["ready", "ready", "unloaded"]);
  await use(2);
  await use(4);
  assert.deepEqual(states(), ["ready", "unloaded", "ready"]);
  using _second = await choose(serving, { selector: { case: "version", value: 2 } });
  using fourth = await choose(serving, { selector: { case: "version", value: 4 } });
  await assert.rejects(use(3), { code: "MODEL_MEMORY_FULL", message: /MODEL_MEMORY_MB/ });
  assert.equal(models.unload(fourth.model.version), false);
  fourth[Symbol.dispose]();
  assert.equal(await use(3), 3);
  assert.deepEqual(states(), ["ready", "ready", "unloaded"]);
  assert.equal(await chosen(serving, {}), 1, "the champion does not count");
});
