/** Servers as processes of their own: started, awaited until they answer rightly, and ended with all that they have started. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Target } from "./load.ts";
import { connect } from "./load-client.ts";

export interface RunningServer extends AsyncDisposable {
  /** host:port. */
  readonly address: string;
  readonly pid: number;
  /** From the start of its process to its first answer. */
  readonly startUpMs: number;
}

export interface Launch {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd?: string;
}

/** A process that was launched, and what it has said so far. */
export interface Launched extends AsyncDisposable {
  readonly child: ChildProcess;
  readonly startedMs: number;
  readonly output: () => string;
  /** Rejects with its last words when it ends. Never resolves. */
  readonly ended: Promise<never>;
}

const startTimeoutMs = 180_000;
const pollMs = 25;
const stopGraceMs = 10_000;
const keptOutput = 20_000;

/** Launches a process in a group of its own, so that what it starts can be ended with it. */
export function launch({ command, args, env, cwd }: Launch): Launched {
  const startedMs = performance.now();
  const options = { env, detached: true, ...(cwd !== undefined && { cwd }) };
  const child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  const keep = (data: Buffer): void => {
    output = (output + data.toString()).slice(-keptOutput);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  const ended = new Promise<never>((_, reject) => {
    child.once("error", reject);
    child.once("close", () => reject(new Error(lastWords(output) ?? `${command} ended without a word`)));
  });
  // Only those who wait for something else of it want to know.
  ended.catch(() => undefined);
  const endWithUs = (): void => signalGroup(child, "SIGKILL");
  process.once("exit", endWithUs);
  return {
    child,
    startedMs,
    output: () => output,
    ended,
    [Symbol.asyncDispose]: async () => {
      await stop(child);
      process.off("exit", endWithUs);
    },
  };
}

function lastWords(output: string): string | undefined {
  return output.trimEnd().split("\n").at(-1)?.slice(0, 300) || undefined;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  signalGroup(child, "SIGTERM");
  const kill = setTimeout(() => signalGroup(child, "SIGKILL"), stopGraceMs);
  await exited;
  clearTimeout(kill);
  // Workers may outlive the process that was to end them.
  signalGroup(child, "SIGKILL");
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(-pid, signal);
  } catch {
    // All of them have ended.
  }
}

/** Asks until there is an answer, and returns the milliseconds from the launch to it. */
export async function untilAnswered({ startedMs, ended, output }: Launched, target: Target): Promise<number> {
  let last = "nobody listens";
  const ask = async (): Promise<boolean> => {
    const client = await connect(target, 1).catch(() => undefined);
    const outcome = await client?.send(0);
    await client?.close();
    if (outcome?.kind === "failed") last = outcome.reason;
    return outcome?.kind === "answered";
  };
  while (performance.now() - startedMs < startTimeoutMs) {
    if (await Promise.race([ask(), ended])) return performance.now() - startedMs;
    await delay(pollMs);
  }
  throw new Error(`${target.url} does not answer (${last}): ${lastWords(output())}`);
}

/** A port of loopback that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("the socket has no port");
  return address.port;
}
