/** The highest rate of the prediction service, against what ONNX Runtime reaches alone. */
import { availableParallelism } from "node:os";
import { type CeilingWork, startCeiling } from "./ceiling.ts";
import { type Bench, checkAnswers, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import { modelName } from "./millrace.ts";
import { createRows, median, ratios, type Table } from "./table.ts";
import { inferGrpc, predictGrpc, type Wire } from "./wires.ts";

/** Some networks are quickest in small batches, whose activations stay in the cache. */
const batchSizes = [1, 8, 32];

interface Kind {
  readonly name: string;
  readonly wire: Wire;
  readonly ceiling: CeilingWork;
  /** The share of the ceiling that is wanted. */
  readonly share: number;
}

const kinds: readonly Kind[] = [
  { name: "raw tensors, ModelInfer", wire: inferGrpc(modelName), ceiling: "infer", share: 0.6 },
  { name: "JPEGs, Predict", wire: predictGrpc, ceiling: "decode and infer", share: 0.5 },
];

type Rows = ReturnType<typeof createRows>;

export async function measureCapacity(bench: Bench): Promise<Table> {
  const { options, hub, images, model } = bench;
  // One processor is the generator's.
  const threads = Math.max(1, availableParallelism() - 1);
  using ceiling = await startCeiling({ onnx: model.onnx, images, threads });
  await using server = await hub.startService();
  for (const { wire } of kinds) {
    await checkAnswers(bench, server, wire);
    await warmUp(bench, server, wire);
  }
  const rows = createRows();
  for (let round = 0; round < options.rounds; round++) {
    for (const { name, wire, ceiling: work } of kinds) {
      for (const inFlight of options.inFlight) {
        const figures = await measure(bench, { server, wire, arrivals: { kind: "closed", inFlight } });
        rows.add(rowName(name, inFlight), figures);
      }
      for (const batchSize of batchSizes) {
        const { perSecond, cpuSeconds, seconds } = await ceiling.measure({ work, batchSize, seconds: options.seconds });
        const serverCpu = cpuSeconds / seconds;
        rows.add(ceilingName(work, batchSize), {
          answered: perSecond,
          serverCpu,
          cpuMicros: (1e6 * serverCpu) / perSecond,
        });
      }
    }
  }
  return {
    title: `highest rates over gRPC; ONNX Runtime alone on ${threads} thread${threads === 1 ? "" : "s"} of ${availableParallelism()}`,
    columns: usualColumns,
    rows: rows.all(),
    verdicts: kinds.flatMap((kind) => verdictsOn(kind, rows, options.inFlight)),
  };
}

const rowName = (name: string, inFlight: number): string => `${name}, ${inFlight} in flight`;
const ceilingName = (work: CeilingWork, batchSize: number): string => `ONNX Runtime alone, ${work}, batch ${batchSize}`;

function verdictsOn({ name, ceiling, share }: Kind, rows: Rows, inFlights: readonly number[]): string[] {
  const best = batchSizes
    .map((batchSize) => ceilingName(ceiling, batchSize))
    .toSorted((a, b) => median(rows.values(b, "answered")) - median(rows.values(a, "answered")))[0];
  const row = rowName(name, inFlights.includes(usualInFlight) ? usualInFlight : (inFlights.at(-1) ?? 0));
  if (best === undefined) return [];
  const ours = rows.values(row, "answered");
  const alone = rows.values(best, "answered");
  const percent = (values: readonly number[]): string => `${(100 * median(values)).toFixed(0)} %`;
  const efficiency = ratios(rows.values(best, "cpuMicros"), rows.values(row, "cpuMicros"));
  return [
    `${row}: ${percent(ratios(ours, alone))} of the rate of "${best}"; wanted: ${100 * share} %`,
    `  of its processor time, ONNX Runtime alone would need ${percent(efficiency)} for the same answers`,
  ];
}
