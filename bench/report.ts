import { cpus, loadavg } from "node:os";

/** What the figures were taken on: a line for the top of a report. */
export function machine(): string {
  const processors = cpus();
  const load = loadavg()[0]?.toFixed(1);
  const date = new Date().toISOString().slice(0, 10);
  return `${processors.length} x ${processors[0]?.model.trim()}, Node ${process.versions.node}, load ${load}, ${date}`;
}

/** The value below which this share of the sorted values lies. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

export const reportHeader = `${"".padEnd(34)}${["median", "least", "most"].map((word) => word.padStart(9)).join("")}`;

/** A line with the median, the least and the most of several runs; nothing where there were none. */
export function reportLine(name: string, unit: string, values: readonly number[], digits: number): string | undefined {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const figures = [quantile(sorted, 0.5), sorted[0], sorted.at(-1)].map((value) => (value ?? 0).toFixed(digits));
  return `${name.padEnd(34)}${figures.map((text) => text.padStart(9)).join("")}  ${unit} (n = ${sorted.length})`;
}
