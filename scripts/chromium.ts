/** A headless Chromium, for pictures of pages and tests of them. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";

const names = ["chromium", "chromium-browser", "google-chrome"];

/** The program: that of the variable CHROMIUM, else the first on PATH; undefined where there is none. */
export function findChromium(env: NodeJS.ProcessEnv = process.env): string | undefined {
  if (env.CHROMIUM) return env.CHROMIUM;
  const folders = (env.PATH ?? "").split(delimiter);
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
}

/** Runs it without a window and with a profile of its own, and returns what it wrote to standard output. */
export async function runChromium(program: string, args: readonly string[]): Promise<string> {
  const profile = await mkdtemp(join(tmpdir(), "millrace-chromium-"));
  // Chromium refuses its sandbox to root, as whom containers run.
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const settings = ["--headless=new", "--disable-gpu", "--hide-scrollbars", `--user-data-dir=${profile}`, ...sandbox];
  try {
    const { stdout } = await promisify(execFile)(program, [...settings, ...args], { maxBuffer: 256 * 1024 * 1024 });
    return stdout;
  } finally {
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
