/** The prediction service beside Python servers with the same model: one server at a time is up, and they take turns. */
import { join } from "node:path";
import { AppError } from "../../lib/errors.ts";
import { type Bench, checkAnswers, measure, usualColumns, usualInFlight, warmUp } from "./measuring.ts";
import { modelName } from "./millrace.ts";
import { writeModelFiles } from "./model.ts";
import { peers } from "./peers.ts";
import type { RunningServer } from "./servers.ts";
import { createRows, median, type Table } from "./table.ts";
import { inferGrpc, inferRest, predictConnect, predictGrpc, type Wire } from "./wires.ts";

const wantedLead = 3;

const columns = [
  ...usualColumns.slice(0, 4),
  { key: "memoryMost", title: "MB", digits: 0 },
  { key: "startUpSeconds", title: "start-up s", digits: 1 },
  ...usualColumns.slice(4),
];

interface Subject {
  /** How it is asked; the name of each becomes a row. */
  readonly wires: Readonly<Record<string, Wire>>;
  start(): Promise<RunningServer>;
}

const ourWires = {
  "Millrace, ModelInfer": inferGrpc(modelName),
  "Millrace, ModelInfer by REST": inferRest(modelName),
  "Millrace, Predict, JPEG": predictGrpc,
  "Millrace, Predict by Connect, JPEG": predictConnect,
};

/** The service with two processes on one port, as some of the others are measured. */
const ourWiresWithWorkers = {
  "Millrace, 2 workers, ModelInfer": inferGrpc(modelName),
  "Millrace, 2 workers, Predict, JPEG": predictGrpc,
};

export async function comparePeers(bench: Bench): Promise<Table> {
  const modelFolder = join(bench.home, "model");
  await writeModelFiles(modelFolder, bench.model);
  const { images, options } = bench;
  const subjects: readonly Subject[] = [
    { wires: ourWires, start: () => bench.hub.startService() },
    { wires: ourWiresWithWorkers, start: () => bench.hub.startService({ MILLRACE_PREDICTION_WORKERS: "2" }) },
    ...peers.map(({ name, wire, start }) => ({ wires: { [name]: wire }, start: () => start({ modelFolder, images }) })),
  ];
  const rows = createRows();
  const absent = new Map<Subject, string>();
  for (let round = 0; round < options.rounds; round++) {
    for (const subject of subjects) {
      if (absent.has(subject)) continue;
      try {
        await measureSubject(bench, subject, rows);
      } catch (thrown) {
        absent.set(subject, `${Object.keys(subject.wires).join("; ")}: not measured: ${AppError.from(thrown).message}`);
      }
    }
  }
  return {
    title: `servers with the same model, ${usualInFlight} requests in flight`,
    columns,
    rows: rows.all(),
    verdicts: [...absent.values(), ...verdicts(rows)],
  };
}

async function measureSubject(
  bench: Bench,
  { wires, start }: Subject,
  rows: ReturnType<typeof createRows>,
): Promise<void> {
  await using server = await start();
  for (const [name, wire] of Object.entries(wires)) {
    await checkAnswers(bench, server, wire);
    await warmUp(bench, server, wire);
    const figures = await measure(bench, { server, wire, arrivals: { kind: "closed", inFlight: usualInFlight } });
    rows.add(name, { ...figures, startUpSeconds: server.startUpMs / 1_000 });
  }
}

/** Like with like: the quickest of ours and of theirs that take the same input. */
function verdicts(rows: ReturnType<typeof createRows>): string[] {
  const theirWires = Object.fromEntries(peers.map(({ name, wire }) => [name, wire]));
  return (["tensors", "JPEGs"] as const).flatMap((input) => {
    const quickest = (wires: Readonly<Record<string, Wire>>) =>
      Object.entries(wires)
        .filter(([, wire]) => wire.input === input)
        .map(([name]) => ({ name, rate: median(rows.values(name, "answered")) }))
        .filter(({ rate }) => rate > 0)
        .toSorted((a, b) => b.rate - a.rate)[0];
    const [ours, theirs] = [quickest({ ...ourWires, ...ourWiresWithWorkers }), quickest(theirWires)];
    if (ours === undefined || theirs === undefined) return [];
    const lead = (ours.rate / theirs.rate).toFixed(1);
    return [`${input}: "${ours.name}" has ${lead} times the rate of "${theirs.name}"; wanted: ${wantedLead} times`];
  });
}
