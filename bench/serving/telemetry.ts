/**
 * What telemetry costs: pairs of services that differ in nothing else, at the same time, so that a slow moment of the machine meets both.
 * Both are started anew for each measurement: two processes that run the same code differ by some percent for as long as they live.
 */
import { join } from "node:path";
import { startCollector } from "../telemetry/collector.ts";
import { startGenerator } from "./load.ts";
import { type Bench, type Figures, measure, usualColumns, usualInFlight } from "./measuring.ts";
import { createRows, spread, type Table } from "./table.ts";
import { predictGrpc as wire } from "./wires.ts";

const wantedRatio = "0.95 or more";
const off = "no telemetry";
/** Another service without telemetry: how far it is from the first is what the machine makes of two that are alike. */
const control = "no telemetry, a second service";

const telemetryOff = { OTEL_SDK_DISABLED: "true" };

/** Variables of the services that are compared with one without. Metrics are counted unless all of telemetry is off. */
function settings(traceFolder: string, toCollector: NodeJS.ProcessEnv): Readonly<Record<string, NodeJS.ProcessEnv>> {
  const toFiles = { MILLRACE_TRACE_DIR: traceFolder };
  return {
    [control]: telemetryOff,
    "metrics (npm run service)": {},
    "and 1 % of traces, to a collector (deploy/)": { ...toCollector, MILLRACE_TRACE_SHARE: "0.01" },
    "and all traces, to files (npm start)": toFiles,
    "and all traces, to a collector": toCollector,
  };
}

/** Of each service: together they have as many under way as one service has elsewhere. */
const inFlight = usualInFlight / 2;

export async function measureTelemetry(bench: Bench): Promise<Table> {
  using collector = await startCollector();
  using generator = startGenerator();
  const others = Object.entries(settings(join(bench.home, "traces"), collector.env));
  const rows = createRows();
  for (let round = 0; round < bench.options.rounds; round++) {
    for (const [name, env] of others) {
      // By turns each is the first to start: the second of two that are alike has been some percent ahead.
      const swapped = round % 2 === 1;
      const pair = await measurePair(
        [bench, { ...bench, generator }],
        swapped ? [env, telemetryOff] : [telemetryOff, env],
      );
      const [without, figures] = swapped ? [pair[1], pair[0]] : pair;
      rows.add(off, without);
      const rate = figures.answered / without.answered;
      const time = figures.cpuMicros / without.cpuMicros;
      rows.add(name, { ...figures, rate, time });
    }
  }
  return {
    title: `with and without telemetry at the same time, JPEGs by Predict over gRPC, ${inFlight} in flight each`,
    columns: usualColumns,
    rows: rows.all(),
    verdicts: others.map(([name]) => {
      const [rate, time] = [spread(rows.values(name, "rate"), 3), spread(rows.values(name, "time"), 3)];
      const wanted = name === control ? "" : `, wanted ${wantedRatio}`;
      return `${name}: ${rate} times the rate without telemetry${wanted}; ${time} times the processor time an answer`;
    }),
  };
}

type Two<T> = readonly [T, T];

/** Two services that are started, warmed up and measured at the same time. */
async function measurePair(benches: Two<Bench>, envs: Two<NodeJS.ProcessEnv>): Promise<Two<Figures>> {
  const start = (index: 0 | 1) =>
    benches[index].hub.startService({ MILLRACE_INSTANCE_ID: `service-${index}`, ...envs[index] });
  await using first = await start(0);
  await using second = await start(1);
  const both = (seconds: number): Promise<Two<Figures>> => {
    const load = { wire, arrivals: { kind: "closed", inFlight }, seconds } as const;
    return Promise.all([
      measure(benches[0], { server: first, ...load }),
      measure(benches[1], { server: second, ...load }),
    ]);
  };
  await both(benches[0].options.warmUpSeconds);
  // Awaited here: the services end when this function does.
  return await both(benches[0].options.seconds);
}
