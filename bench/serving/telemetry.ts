/** What telemetry costs: services that differ in nothing else, in turns. Traces are written to files, as `npm start` has it. */
import { join } from "node:path";
import { type Bench, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import type { RunningServer } from "./servers.ts";
import { createRows, median, ratios, type Table } from "./table.ts";
import { predictGrpc as wire } from "./wires.ts";

const wantedPercent = 5;
const off = "no telemetry";

/** Variables of the service. Metrics are counted unless all of telemetry is off. */
function settings(traceFolder: string): Readonly<Record<string, NodeJS.ProcessEnv>> {
  const traced = (share: string) => ({ MILLRACE_TRACE_DIR: traceFolder, MILLRACE_TRACE_SHARE: share });
  return {
    [off]: { OTEL_SDK_DISABLED: "true" },
    metrics: {},
    "metrics, traces kept: 1 %": traced("0.01"),
    "metrics, traces kept: all": traced("1"),
  };
}

interface Subject {
  readonly name: string;
  readonly server: RunningServer;
}

export async function measureTelemetry(bench: Bench): Promise<Table> {
  const subjects: Subject[] = [];
  const rows = createRows();
  try {
    for (const [name, env] of Object.entries(settings(join(bench.home, "traces")))) {
      const server = await bench.hub.startService({ MILLRACE_INSTANCE_ID: `service-${subjects.length}`, ...env });
      subjects.push({ name, server });
      await warmUp(bench, server, wire);
    }
    const arrivals = { kind: "closed", inFlight: usualInFlight } as const;
    for (let round = 0; round < bench.options.rounds; round++) {
      // In turns forwards and backwards: none is always first.
      for (const { name, server } of round % 2 === 0 ? subjects : subjects.toReversed()) {
        rows.add(name, await measure(bench, { server, wire, arrivals }));
      }
    }
  } finally {
    for (const { server } of subjects) await server[Symbol.asyncDispose]();
  }
  const others = subjects.filter(({ name }) => name !== off);
  return {
    title: `with and without telemetry, JPEGs by Predict over gRPC, ${usualInFlight} in flight`,
    columns: usualColumns,
    rows: rows.all(),
    verdicts: others.map(({ name }) => {
      const kept = median(ratios(rows.values(name, "answered"), rows.values(off, "answered")));
      const spent = median(ratios(rows.values(name, "cpuMicros"), rows.values(off, "cpuMicros")));
      const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
      return `${name}: ${percent(1 - kept)} of the rate and ${percent(spent - 1)} more processor time an answer; wanted: under ${wantedPercent} %`;
    }),
  };
}
