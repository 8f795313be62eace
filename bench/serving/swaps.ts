/** What callers notice when the model is exchanged under load, again and again. */
import { setTimeout as delay } from "node:timers/promises";
import { createMillraceClient, type MillraceClient } from "../../client/client.ts";
import { defaultMaxWaitMs } from "../../services/prediction/batch-settings.ts";
import { type Bench, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import type { Hub } from "./millrace.ts";
import { createRows, median, ratios, spread, type Table } from "./table.ts";
import { predictGrpc as wire } from "./wires.ts";

const wantedSlowdown = 3;
const pollMs = 10;
const deadlineMs = 30_000;

const columns = [
  ...usualColumns.slice(0, 3),
  { key: "refused", title: "refused/s", digits: 0 },
  { key: "failed", title: "failed", digits: 0 },
  { key: "swapMs", title: "ms from promotion to live", digits: 0 },
  ...usualColumns.slice(4),
];

const names = { without: "without swaps", during: "during swaps" };

export async function measureSwaps(bench: Bench): Promise<Table> {
  const { options, hub } = bench;
  // Nothing is kept of the version before, so that every swap loads a model and warms it up.
  await using server = await hub.startService({ MILLRACE_PREDICTION_MODEL_MEMORY_MB: "0" });
  const { predictions, close } = createMillraceClient({ baseUrl: `http://${server.address}`, retries: 0 });
  await warmUp(bench, server, wire);
  const closed = { kind: "closed", inFlight: usualInFlight } as const;
  const { answered } = await measure(bench, { server, wire, arrivals: closed });
  await predictions.updateBatching({ maxWaitMs: defaultMaxWaitMs });
  const arrivals = { kind: "open", perSecond: answered / 2 } as const;
  const rows = createRows();
  let live = 1;
  for (let round = 0; round < options.rounds; round++) {
    rows.add(names.without, await measure(bench, { server, wire, arrivals }));
    const tookMs: number[] = [];
    const meanwhile = async (): Promise<void> => {
      for (let swap = 0; swap < options.swaps; swap++) {
        live = live === 1 ? 2 : 1;
        tookMs.push(await swapModel(hub, predictions, live));
      }
    };
    rows.add(names.during, {
      ...(await measure(bench, { server, wire, arrivals, meanwhile })),
      swapMs: median(tookMs),
    });
  }
  close();
  const total = (key: string): number => rows.values(names.during, key).reduce((sum, count) => sum + count, 0);
  const slowdown = median(ratios(rows.values(names.during, "p99"), rows.values(names.without, "p99")));
  return {
    title: `${options.swaps} swaps a round under half of the highest rate, JPEGs by Predict over gRPC`,
    columns,
    rows: rows.all(),
    verdicts: [
      `failed during ${options.rounds * options.swaps} swaps: ${total("failed")}; refused a second: ${spread(rows.values(names.during, "refused"), 0)}; wanted: 0`,
      `p99 during swaps: ${slowdown.toFixed(1)} times that without; wanted: under ${wantedSlowdown} times`,
    ],
  };
}

/** Promotes a version that does not answer, and returns the milliseconds until it does. Asks seldom: that takes from what is measured. */
async function swapModel(hub: Hub, predictions: MillraceClient["predictions"], next: number): Promise<number> {
  const startedMs = performance.now();
  await hub.promote(next);
  do {
    if (performance.now() - startedMs > deadlineMs)
      throw new Error(`version ${next} is not live within ${deadlineMs} ms`);
    await delay(pollMs);
  } while ((await predictions.getModel({})).model?.version !== next);
  return performance.now() - startedMs;
}
