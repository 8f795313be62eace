/**
 * What a unary gRPC call costs a server: processor time and rate of an answer to an image of 3 KB, 16 calls in flight, by the same
 * handler behind our server, behind `@grpc/grpc-js` and behind connect-node alone. Each server is a process of its own, this
 * one is the client (grpc-js) of them all, and they take turns, so that a slow moment of the machine meets all of them.
 *
 *     node --import tsx bench/rpc/calls.ts [--rounds 5] [--calls 4000]
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createMillraceClient } from "../../client/client.ts";
import { machine, reportHeader, reportLine } from "../report.ts";
import { type ServerKind, serverKinds } from "./servers.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, calls: { type: "string", default: "4000" } },
});
const [rounds, calls] = [Number(values.rounds), Number(values.calls)];

const inFlight = 16;
const image = new Uint8Array(3_000).fill(7);

interface Subject {
  readonly kind: ServerKind;
  readonly process: ChildProcess;
  readonly address: string;
}

async function start(kind: ServerKind): Promise<Subject> {
  const server = fork(fileURLToPath(new URL("./servers.ts", import.meta.url)), [kind], {
    execArgv: ["--import", "tsx"],
  });
  const [address] = (await once(server, "message")) as [string];
  return { kind, process: server, address };
}

/** Microseconds of processor time that the server has used. */
async function cpuMicros({ process: server }: Subject): Promise<number> {
  server.send("cpu");
  const [micros] = (await once(server, "message")) as [number];
  return micros;
}

async function callAll({ address }: Subject, count: number): Promise<number> {
  const { predictions, close } = createMillraceClient({ baseUrl: `http://${address}` });
  let left = count;
  const callInTurn = async (): Promise<void> => {
    while (left-- > 0) await predictions.predict({ input: { case: "image", value: image } });
  };
  await predictions.predict({ input: { case: "image", value: image } });
  const startedMs = performance.now();
  await Promise.all(Array.from({ length: inFlight }, callInTurn));
  const seconds = (performance.now() - startedMs) / 1_000;
  close();
  return count / seconds;
}

const subjects = await Promise.all(serverKinds.map(start));
// The first thousands of calls are slow everywhere, until the code is compiled.
for (const subject of subjects) await callAll(subject, calls);
const measured = new Map(subjects.map(({ kind }) => [kind, { micros: [] as number[], rates: [] as number[] }]));
for (let round = 0; round < rounds; round++) {
  for (const subject of subjects) {
    const before = await cpuMicros(subject);
    const rate = await callAll(subject, calls);
    const figures = measured.get(subject.kind);
    figures?.micros.push(((await cpuMicros(subject)) - before) / calls);
    figures?.rates.push(rate);
  }
}
for (const { process: server } of subjects) server.disconnect();

console.log(`unary gRPC calls of ${image.length} bytes, ${inFlight} in flight, ${rounds} rounds of ${calls} calls`);
console.log(`${machine()}\n\n${reportHeader}`);
for (const [kind, { micros, rates }] of measured) {
  console.log(reportLine(kind, "µs of processor time a call", micros, 0));
  console.log(reportLine("", "calls/s", rates, 0));
}
const reference = measured.get("grpc-js")?.micros ?? [];
console.log("\nprocessor time, round by round");
for (const [kind, { micros }] of measured) {
  const ratios = micros.map((figure, round) => figure / (reference[round] ?? Number.NaN));
  if (kind !== "grpc-js") console.log(reportLine(`${kind} of grpc-js`, "times", ratios, 2));
}
