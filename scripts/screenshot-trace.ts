/**
 * Makes the README's picture of a trace: `node --import tsx scripts/screenshot-trace.ts docs/images/trace.png [run id] [options of millrace trace]`
 *
 * `millrace trace` writes the page, and a headless Chromium (variable CHROMIUM, or on PATH) takes its picture.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { findChromium, runChromium } from "./chromium.ts";

const [target, ...traceArgs] = process.argv.slice(2);
if (target === undefined) throw new Error("usage: screenshot-trace.ts FILE.png [run id] [options of millrace trace]");
const chromium = findChromium();
if (chromium === undefined) throw new Error("there is no Chromium: install one, or name it in the variable CHROMIUM");

const width = 1280;
const folder = mkdtempSync(join(tmpdir(), "millrace-screenshot-"));
try {
  const page = join(folder, "trace.html");
  const command = fileURLToPath(new URL("../cli/bootstrap.mjs", import.meta.url));
  execFileSync(process.execPath, [command, "trace", ...traceArgs, "--html", page], { stdio: "inherit" });
  const url = pathToFileURL(page).href;
  const height = await heightOf(chromium, url);
  const size = [`--window-size=${width},${height}`, "--force-device-scale-factor=1.5"];
  await runChromium(chromium, [...size, `--screenshot=${resolve(target)}`, url]);
  console.log(`${target}: ${width} x ${height} points, ${readFileSync(target).length} bytes`);
} finally {
  rmSync(folder, { recursive: true });
}

/** Lines have one height each, so that of the page follows from their number. */
async function heightOf(program: string, url: string): Promise<number> {
  const dom = await runChromium(program, [`--window-size=${width},800`, "--dump-dom", url]);
  const lines = dom.match(/role="treeitem"/g)?.length ?? 0;
  return 250 + 25 * lines + 30;
}
