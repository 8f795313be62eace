/** What the prediction service does at half of its highest rate, and at twice; and what Node's HTTP/2 alone does at half of it. */
import { createMillraceClient } from "../../client/client.ts";
import { defaultMaxWaitMs } from "../../services/prediction/batch-settings.ts";
import { startBareHttp2 } from "./bare-http2.ts";
import { type Bench, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import { patientMaxWaitMs } from "./millrace.ts";
import { createRows, median, ratios, type Table } from "./table.ts";
import { predictGrpc as wire } from "./wires.ts";

const wantedP99Ms = 10;
/** Of what was accepted in overload, times that at half the rate. */
const wantedSlowdown = 5;

const columns = [
  ...usualColumns.slice(0, 3),
  { key: "refused", title: "refused/s", digits: 0 },
  { key: "refusedP99", title: "refused p99 ms", digits: 1 },
  { key: "failed", title: "failed", digits: 0 },
  { key: "late", title: "late p99 ms", digits: 1 },
  { key: "memoryBefore", title: "MB before", digits: 0 },
  { key: "memoryMost", title: "MB most", digits: 0 },
  { key: "memoryAfter", title: "MB after", digits: 0 },
  ...usualColumns.slice(4),
];

const names = {
  highest: `${usualInFlight} in flight`,
  half: "half of that rate",
  bare: "Node's HTTP/2 alone, half",
  twice: "twice that rate",
};

export async function measureOverload(bench: Bench): Promise<Table> {
  await using server = await bench.hub.startService();
  await using bare = await startBareHttp2(wire, bench.images);
  const { predictions, close } = createMillraceClient({ baseUrl: `http://${server.address}`, retries: 0 });
  for (const each of [server, bare]) await warmUp(bench, each, wire);
  const rows = createRows();
  for (let round = 0; round < bench.options.rounds; round++) {
    await predictions.updateBatching({ maxWaitMs: patientMaxWaitMs });
    const closed = { kind: "closed", inFlight: usualInFlight } as const;
    const highest = await measure(bench, { server, wire, arrivals: closed });
    rows.add(names.highest, highest);
    await predictions.updateBatching({ maxWaitMs: defaultMaxWaitMs });
    const open = (share: number) => ({ kind: "open", perSecond: share * highest.answered }) as const;
    rows.add(names.half, await measure(bench, { server, wire, arrivals: open(0.5) }));
    rows.add(names.bare, await measure(bench, { server: bare, wire, arrivals: open(0.5) }));
    rows.add(names.twice, await measure(bench, { server, wire, arrivals: open(2) }));
  }
  close();
  const half = rows.values(names.half, "p99");
  const bare99 = rows.values(names.bare, "p99");
  const slowdown = median(ratios(rows.values(names.twice, "p99"), half));
  return {
    title: "JPEGs by Predict over gRPC, at the highest rate, at half of it and at twice",
    columns,
    rows: rows.all(),
    verdicts: [
      `p99 at half the rate: ${median(half).toFixed(1)} ms; wanted: under ${wantedP99Ms} ms; HTTP/2 alone: ${median(bare99).toFixed(1)} ms`,
      `p99 of what is accepted at twice the rate: ${slowdown.toFixed(1)} times that; wanted: under ${wantedSlowdown} times`,
    ],
  };
}
