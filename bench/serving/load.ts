/** Load on a server: what it is, what came of it, and the process that makes it. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { typeScriptOptions } from "../../lib/type-script.ts";

/** Where requests go and what they are. Bodies are sent in turns, so that no two requests of a moment are the same. */
export interface Target {
  readonly protocol: "grpc" | "http";
  /** With the path of the method. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Serialised requests; over gRPC without the prefix of a message. */
  readonly bodies: readonly Uint8Array[];
}

/**
 * When requests are sent. "closed": so many are always under way, each sent when the one before was answered. "open": they come at
 * a mean rate, independently of each other (Poisson) and of the answers; their time counts from the moment at which they were due,
 * so that a server which makes the generator wait does not look quicker for it.
 */
export type Arrivals =
  | { readonly kind: "closed"; readonly inFlight: number }
  | { readonly kind: "open"; readonly perSecond: number };

export interface Load {
  readonly target: Target;
  readonly arrivals: Arrivals;
  /** How long requests are sent. Infinity: until told to stop. */
  readonly seconds: number;
}

/** Times are in milliseconds, sorted. */
export interface LoadReport {
  readonly answeredMs: Float64Array;
  /** Until they were refused: RESOURCE_EXHAUSTED, HTTP 429 or 503. */
  readonly refusedMs: Float64Array;
  /** How many requests failed otherwise, by reason. */
  readonly failures: Readonly<Record<string, number>>;
  /** How late requests of an open load were sent; empty for a closed one. */
  readonly lateMs: Float64Array;
  /** From the first request to the last answer. */
  readonly seconds: number;
  /** Of the generator itself. */
  readonly cpuSeconds: number;
}

/** What the generator is told. */
export type GeneratorOrder = { readonly kind: "run"; readonly load: Load } | { readonly kind: "stop" };

export interface RunningLoad {
  readonly report: Promise<LoadReport>;
  /** Sends no more; the report comes when all that were sent are answered. */
  stop(): void;
}

/** A process of its own that makes load, one after another. */
export interface Generator extends Disposable {
  begin(load: Load): RunningLoad;
}

export function startGenerator(): Generator {
  const child = fork(join(import.meta.dirname, "generator.ts"), {
    execArgv: [...typeScriptOptions],
    serialization: "advanced",
  });
  const order = (message: GeneratorOrder): void => void child.send(message);
  return {
    begin(load) {
      order({ kind: "run", load });
      return { report: nextReport(child), stop: () => order({ kind: "stop" }) };
    },
    [Symbol.dispose]: () => void child.kill(),
  };
}

async function nextReport(child: ChildProcess): Promise<LoadReport> {
  const over = new AbortController();
  const { signal } = over;
  const reported = once(child, "message", { signal }) as Promise<[LoadReport]>;
  const ended = once(child, "exit", { signal }).then(() => {
    throw new Error("the load generator ended before its report; what it said is above");
  });
  try {
    const [report] = await Promise.race([reported, ended]);
    return report;
  } finally {
    // The one that is still waited for shall not be, and nobody is left to hear of that.
    for (const wait of [reported, ended]) wait.catch(() => undefined);
    over.abort();
  }
}
