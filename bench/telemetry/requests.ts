/**
 * What telemetry costs a prediction: processor time of the server for a unary gRPC call with one span inside, without
 * telemetry, with metrics alone, and with traces that are all kept, kept to a share, or hardly ever kept. Spans go to a
 * collector in this process. The servers take turns, so that a slow moment of the machine meets all of them.
 *
 *     node --import tsx bench/telemetry/requests.ts [--rounds 5] [--calls 8000]
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createMillraceClient } from "../../client/client.ts";
import { machine, reportHeader, reportLine } from "../report.ts";
import { startCollector } from "./collector.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, calls: { type: "string", default: "8000" } },
});
const [rounds, calls] = [Number(values.rounds), Number(values.calls)];
const inFlight = 16;
const image = new Uint8Array(3_000).fill(7);

using collector = await startCollector();
const traces = collector.env;

/** Variables, and the share of traces that is kept. */
const settings = {
  "no telemetry": [{ OTEL_SDK_DISABLED: "true" }, 1],
  metrics: [{}, 1],
  "metrics, traces kept: 0.1 %": [traces, 0.001],
  "metrics, traces kept: 10 %": [traces, 0.1],
  "metrics, traces kept: all": [traces, 1],
} as const;

interface Subject {
  readonly name: string;
  readonly process: ChildProcess;
  readonly address: string;
  readonly micros: number[];
}

async function start([name, [env, share]]: [string, readonly [object, number]]): Promise<Subject> {
  const server = fork(fileURLToPath(new URL("./server.ts", import.meta.url)), [String(share)], {
    execArgv: ["--import", "tsx"],
    env: { ...process.env, ...env },
  });
  const [address] = (await once(server, "message")) as [string];
  return { name, process: server, address, micros: [] };
}

/** Microseconds of processor time that the server has used. */
async function cpuMicros({ process: server }: Subject): Promise<number> {
  server.send("cpu");
  const [micros] = (await once(server, "message")) as [number];
  return micros;
}

async function callAll({ address }: Subject): Promise<void> {
  const { predictions, close } = createMillraceClient({ baseUrl: `http://${address}` });
  let left = calls;
  const callInTurn = async (): Promise<void> => {
    while (left-- > 0) await predictions.predict({ input: { case: "image", value: image } });
  };
  await Promise.all(Array.from({ length: inFlight }, callInTurn));
  close();
}

const subjects = await Promise.all(Object.entries(settings).map(start));
// The first thousands of calls are slow everywhere, until the code is compiled.
for (const subject of subjects) await callAll(subject);
for (let round = 0; round < rounds; round++) {
  for (const subject of subjects) {
    const before = await cpuMicros(subject);
    await callAll(subject);
    subject.micros.push(((await cpuMicros(subject)) - before) / calls);
  }
}
for (const { process: server } of subjects) server.disconnect();

console.log(`unary gRPC calls with one span inside, ${inFlight} in flight, ${rounds} rounds of ${calls} calls`);
console.log(`${machine()}\n\n${reportHeader}`);
for (const { name, micros } of subjects) console.log(reportLine(name, "µs of processor time a call", micros, 0));
