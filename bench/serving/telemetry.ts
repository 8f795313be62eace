/** What telemetry costs: services that differ in nothing else, in turns. */
import { join } from "node:path";
import { startCollector } from "../telemetry/collector.ts";
import { type Bench, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import type { RunningServer } from "./servers.ts";
import { createRows, ratios, spread, type Table } from "./table.ts";
import { predictGrpc as wire } from "./wires.ts";

const wantedRatio = "0.95 or more";
const off = "no telemetry";
/** Another service without telemetry: how far it is from the first is what the machine makes of two that are alike. */
const control = "no telemetry, a second service";

/** Variables of the service. Metrics are counted unless all of telemetry is off. */
function settings(traceFolder: string, toCollector: NodeJS.ProcessEnv): Readonly<Record<string, NodeJS.ProcessEnv>> {
  const toFiles = { MILLRACE_TRACE_DIR: traceFolder };
  return {
    [off]: { OTEL_SDK_DISABLED: "true" },
    [control]: { OTEL_SDK_DISABLED: "true" },
    "metrics (npm run service)": {},
    "and 1 % of traces, to a collector (deploy/)": { ...toCollector, MILLRACE_TRACE_SHARE: "0.01" },
    "and all traces, to files (npm start)": toFiles,
    "and all traces, to a collector": toCollector,
  };
}

interface Subject {
  readonly name: string;
  readonly server: RunningServer;
}

export async function measureTelemetry(bench: Bench): Promise<Table> {
  const subjects: Subject[] = [];
  const rows = createRows();
  using collector = await startCollector();
  try {
    for (const [name, env] of Object.entries(settings(join(bench.home, "traces"), collector.env))) {
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
      const rate = spread(ratios(rows.values(name, "answered"), rows.values(off, "answered")), 3);
      const time = spread(ratios(rows.values(name, "cpuMicros"), rows.values(off, "cpuMicros")), 3);
      const wanted = name === control ? "" : `, wanted ${wantedRatio}`;
      return `${name}: ${rate} times the rate without telemetry${wanted}; ${time} times the processor time an answer`;
    }),
  };
}
