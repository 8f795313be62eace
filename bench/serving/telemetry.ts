/** What traces cost: two services, one that writes them to files as `npm start` has it and one that does not, in turns. */
import { join } from "node:path";
import { type Bench, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import { createRows, median, ratios, type Table } from "./table.ts";
import { predictGrpc as wire } from "./wires.ts";

const wantedPercent = 5;
const [off, on] = ["telemetry off", "telemetry on"];

export async function measureTelemetry(bench: Bench): Promise<Table> {
  await using plain = await bench.hub.startService();
  await using traced = await bench.hub.startService({ MILLRACE_TRACE_DIR: join(bench.home, "traces") });
  const subjects = [
    { name: off, server: plain },
    { name: on, server: traced },
  ];
  for (const { server } of subjects) await warmUp(bench, server, wire);
  const rows = createRows();
  const arrivals = { kind: "closed", inFlight: usualInFlight } as const;
  for (let round = 0; round < bench.options.rounds; round++) {
    // Each is first in every second round.
    for (const { name, server } of round % 2 === 0 ? subjects : subjects.toReversed()) {
      rows.add(name, await measure(bench, { server, wire, arrivals }));
    }
  }
  const kept = median(ratios(rows.values(on, "answered"), rows.values(off, "answered")));
  return {
    title: `traces of every call written to files, JPEGs by Predict over gRPC, ${usualInFlight} in flight`,
    columns: usualColumns,
    rows: rows.all(),
    verdicts: [`telemetry costs ${(100 * (1 - kept)).toFixed(1)} % of the rate; wanted: under ${wantedPercent} %`],
  };
}
