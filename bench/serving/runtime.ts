/** What it does to answers how Node is started: services that differ in nothing else, in turns. */
import { typeScriptOptions } from "../../lib/type-script.ts";
import { type Bench, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import { heapOptions } from "./millrace.ts";
import type { RunningServer } from "./servers.ts";
import { createRows, ratios, spread, type Table } from "./table.ts";
import { predictGrpc as wire } from "./wires.ts";

const deployed = "as deployed";

const options: Readonly<Record<string, readonly string[]>> = {
  [deployed]: [...typeScriptOptions, ...heapOptions],
  "V8's own heap and threads": typeScriptOptions,
  "with tsx": ["--import", "tsx", ...heapOptions],
};

const atMost = (name: string): string => `${name}, ${usualInFlight} in flight`;
const atHalf = (name: string): string => `${name}, half of the highest rate`;

export async function measureRuntime(bench: Bench): Promise<Table> {
  const subjects: { readonly name: string; readonly server: RunningServer }[] = [];
  const rows = createRows();
  const closed = { kind: "closed", inFlight: usualInFlight } as const;
  try {
    for (const [name, nodeOptions] of Object.entries(options)) {
      const server = await bench.hub.startService({ MILLRACE_INSTANCE_ID: `service-${subjects.length}` }, nodeOptions);
      subjects.push({ name, server });
      await warmUp(bench, server, wire);
    }
    for (let round = 0; round < bench.options.rounds; round++) {
      // The same rate for all: half of what the machine gives the first one in this round.
      let perSecond = 0;
      for (const { name, server } of subjects) {
        const highest = await measure(bench, { server, wire, arrivals: closed });
        perSecond ||= highest.answered / 2;
        rows.add(atMost(name), highest);
        rows.add(atHalf(name), await measure(bench, { server, wire, arrivals: { kind: "open", perSecond } }));
      }
    }
  } finally {
    for (const { server } of subjects) await server[Symbol.asyncDispose]();
  }
  const others = subjects.filter(({ name }) => name !== deployed);
  return {
    title: "how Node is started, JPEGs by Predict over gRPC",
    columns: usualColumns,
    rows: rows.all(),
    verdicts: others.map(({ name }) => {
      const rate = spread(ratios(rows.values(atMost(name), "answered"), rows.values(atMost(deployed), "answered")), 3);
      const p99 = spread(ratios(rows.values(atHalf(name), "p99"), rows.values(atHalf(deployed), "p99")), 2);
      return `${name}: ${rate} times the highest rate as deployed, ${p99} times its p99 at half of that`;
    }),
  };
}
