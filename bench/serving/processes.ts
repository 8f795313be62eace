/** What a server uses, as Linux tells it; elsewhere every figure is NaN. */
import { readdir, readFile } from "node:fs/promises";

/** Linux counts processor time in hundredths of a second for every program, whatever its own clock. */
const ticksPerSecond = 100;

export interface Usage {
  /** The processes that were alive. */
  readonly pids: readonly number[];
  /** Processor time so far, in user and system mode. */
  readonly cpuSeconds: number;
  /** Memory in MB; what processes share is counted once (proportional set size). */
  readonly memoryMb: number;
}

/**
 * What a process and all that it has started use together. Not to be asked while something is measured: the kernel walks all pages of a
 * process for it, and lets it map none meanwhile, which stops a server of 600 MB for ten milliseconds and more.
 */
export async function usageOf(pid: number): Promise<Usage> {
  const stats = await allProcesses();
  if (stats.size === 0) return { pids: [], cpuSeconds: Number.NaN, memoryMb: Number.NaN };
  const pids = descendants(pid, stats);
  const memories = await Promise.all(pids.map(proportionalMbOf));
  return {
    pids,
    cpuSeconds: pids.reduce((sum, member) => sum + (stats.get(member)?.cpuSeconds ?? 0), 0),
    memoryMb: memories.reduce((sum, memory) => sum + memory, 0),
  };
}

/** Memory of processes in MB; what they share is counted for each. The kernel knows it without looking. */
export async function residentMbOf(pids: readonly number[]): Promise<number> {
  const memories = await Promise.all(pids.map((pid) => kilobytesIn(`/proc/${pid}/status`, /^VmRSS:\s+(\d+) kB$/m)));
  return memories.reduce((sum, kilobytes) => sum + kilobytes / 1024, 0);
}

interface ProcessStat {
  readonly parent: number;
  readonly cpuSeconds: number;
}

async function allProcesses(): Promise<Map<number, ProcessStat>> {
  const names = await readdir("/proc").catch(() => []);
  const pids = names.map(Number).filter(Number.isInteger);
  const entries = await Promise.all(
    pids.map(async (pid): Promise<[number, ProcessStat] | undefined> => {
      // A process may end at any time.
      const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
      if (text === undefined) return undefined;
      // The second field, the name in parentheses, may hold anything; the third is the first behind it (man 5 proc).
      const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
      // Its own time in user and system mode, and that of its children who have ended.
      const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
      const cpuSeconds = ticks / ticksPerSecond;
      return [pid, { parent: Number(fields[1]), cpuSeconds }];
    }),
  );
  return new Map(entries.filter((entry) => entry !== undefined));
}

function descendants(pid: number, stats: ReadonlyMap<number, ProcessStat>): number[] {
  const children = [...stats].filter(([, { parent }]) => parent === pid);
  return [pid, ...children.flatMap(([child]) => descendants(child, stats))];
}

async function proportionalMbOf(pid: number): Promise<number> {
  return (await kilobytesIn(`/proc/${pid}/smaps_rollup`, /^Pss:\s+(\d+) kB$/m)) / 1024;
}

async function kilobytesIn(file: string, pattern: RegExp): Promise<number> {
  // A process may end at any time.
  const text = await readFile(file, "utf8").catch(() => "");
  return Number(pattern.exec(text)?.[1] ?? 0);
}
