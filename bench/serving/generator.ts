/** The process that makes load: `load.ts` starts it and says what to send. */
import { setTimeout as delay } from "node:timers/promises";
import { createRandom } from "../../lib/nn/random.ts";
import type { Arrivals, GeneratorOrder, Load, LoadReport } from "./load.ts";
import { connect, type LoadClient, type Outcome } from "./load-client.ts";

/** Connections of an open load over HTTP/1.1, where nobody says how many requests will be under way. */
const openConnections = 256;
/** How often a closed load is asked whether it is over. */
const closedPollMs = 20;
/** How long answers are waited for once nothing more is sent. */
const drainMs = 30_000;

type Count = (outcome: Outcome, tookMs: number) => void;

async function run({ target, arrivals, seconds }: Load, signal: AbortSignal): Promise<LoadReport> {
  const connections = arrivals.kind === "closed" ? arrivals.inFlight : openConnections;
  const client = await connect(target, connections);
  const times = { answered: [] as number[], refused: [] as number[] };
  const failures: Record<string, number> = {};
  const count: Count = (outcome, tookMs) => {
    if (outcome.kind !== "failed") times[outcome.kind].push(tookMs);
    else failures[outcome.reason] = (failures[outcome.reason] ?? 0) + 1;
  };
  const cpuBefore = process.cpuUsage();
  const startedMs = performance.now();
  const isOver = (): boolean => signal.aborted || performance.now() - startedMs >= seconds * 1_000;
  const lateMs = await send(client, arrivals, { count, isOver });
  const { user, system } = process.cpuUsage(cpuBefore);
  const report = {
    answeredMs: sorted(times.answered),
    refusedMs: sorted(times.refused),
    failures,
    lateMs: sorted(lateMs),
    seconds: (performance.now() - startedMs) / 1_000,
    cpuSeconds: (user + system) / 1e6,
  };
  await client.close();
  return report;
}

interface Sending {
  readonly count: Count;
  readonly isOver: () => boolean;
}

/** Sends until it is over and waits for the answers. Returns how late each request was sent. */
async function send(client: LoadClient, arrivals: Arrivals, { count, isOver }: Sending): Promise<number[]> {
  let index = 0;
  let underWay = 0;
  let drained = (): void => {};
  const one = async (dueMs: number): Promise<Outcome> => {
    underWay++;
    const outcome = await client.send(index++);
    count(outcome, performance.now() - dueMs);
    underWay--;
    if (underWay === 0) drained();
    return outcome;
  };
  const repeat = async (): Promise<void> => {
    while (!isOver()) {
      const { kind } = await one(performance.now());
      // A connection that is gone fails at once, again and again; this process has to hear the end all the same.
      if (kind === "failed") await delay(1);
    }
  };
  const lateMs: number[] = [];
  if (arrivals.kind === "closed") {
    for (let loop = 0; loop < arrivals.inFlight; loop++) void repeat();
    while (!isOver()) await delay(closedPollMs);
  } else {
    await sendOnTime(arrivals.perSecond, isOver, (dueMs) => {
      lateMs.push(performance.now() - dueMs);
      void one(dueMs);
    });
  }
  if (underWay > 0) {
    await Promise.race([
      new Promise<void>((resolve) => (drained = resolve)),
      delay(drainMs, undefined, { ref: false }),
    ]);
  }
  for (let missing = underWay; missing > 0; missing--) {
    count({ kind: "failed", reason: `no answer within ${drainMs} ms after the end` }, Number.NaN);
  }
  return lateMs;
}

/** Timers wake up to a millisecond late; what has come due meanwhile is sent at once. */
async function sendOnTime(perSecond: number, isOver: () => boolean, sendOne: (dueMs: number) => void): Promise<void> {
  const random = createRandom(1);
  const gapMs = (): number => (-Math.log(1 - random.uniform()) * 1_000) / perSecond;
  for (let dueMs = performance.now() + gapMs(); !isOver(); ) {
    for (; dueMs <= performance.now(); dueMs += gapMs()) sendOne(dueMs);
    await delay(Math.max(0, dueMs - performance.now()));
  }
}

function sorted(values: readonly number[]): Float64Array {
  return Float64Array.from(values).sort();
}

// Whoever wanted the load is gone.
process.once("disconnect", () => process.exit());

let stopping = new AbortController();
process.on("message", async (order: GeneratorOrder) => {
  if (order.kind === "stop") return stopping.abort();
  stopping = new AbortController();
  process.send?.(await run(order.load, stopping.signal));
});
