import { relative } from "node:path";
import { styleText } from "node:util";
import { ConnectError } from "@connectrpc/connect";
import { AppError } from "../lib/errors.ts";
import { calledFrom } from "./called-from.ts";

/** Words for people. Colours only where a person sees them: not in a pipe, not with NO_COLOR. */
export interface Style {
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  bad(text: string): string;
  accent(text: string): string;
}

/** Whether there are colours is for the caller to say: newer versions of Node would look at standard output themselves. */
export function createStyle(colors: boolean): Style {
  const style = (format: Parameters<typeof styleText>[0]) => (text: string) =>
    colors ? styleText(format, text, { validateStream: false }) : text;
  return { bold: style("bold"), dim: style("dim"), good: style("green"), bad: style("red"), accent: style("cyan") };
}

/** 5000 as "5,000". */
export function count(value: number | bigint): string {
  return value.toLocaleString("en-US");
}

/** 0.8712 as "87.1 %". */
export function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}

/** Seconds as "0.8 s", "12 s" or "3 min 05 s". */
export function seconds(value: number): string {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

/** A share as a bar of `width` characters. */
export function bar(share: number, width: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * width);
  return "█".repeat(filled) + "░".repeat(width - filled);
}

/** Rows as columns: the first column to the left, numbers to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join("   "),
  );
}

/** An absolute path as a person at the prompt would write it: from the folder they are in where it is in there. */
export function shortPath(path: string): string {
  const inside = relative(calledFrom, path);
  return inside.startsWith("..") ? path : inside;
}

/** What went wrong, here or at a service, for a person. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof ConnectError ? thrown.rawMessage : AppError.from(thrown).message;
}
