import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pathToFileURL } from "node:url";
import { htmlPage } from "../../../../cli/trace/page.ts";
import { findChromium, runChromium } from "../../../../scripts/chromium.ts";
import { tempFolder } from "../../../helpers/temp-folder.ts";
import { run, type SpanOutline, viewFrom } from "./traces.ts";

const chromium = findChromium();
const skip = chromium === undefined && "there is no Chromium on PATH or in the variable CHROMIUM";

const evil = "<script>document.title = 'broken in'</script>";
const reads = Array.from({ length: 5 }, (_, index): SpanOutline => {
  const attributes = { "millrace.artifact.digest": `sha256:${index}` };
  return { id: `read ${index}`, name: "artifact get", parent: "process b", at: [80 + index, 80.5 + index], attributes };
});
const failed: SpanOutline = {
  id: "failed",
  parent: "process b",
  at: [150, 160],
  error: `gone: ${evil}`,
  attributes: { note: evil },
};

/**
 * What the page shows after a person has done something, as the lines' names with what is selected. The person is a script that is
 * put at the page's end, for which the page's policy has to be taken out.
 */
async function shownAfter(t: TestContext, actions: string): Promise<{ names: string[]; text: string; title: string }> {
  const page = htmlPage(viewFrom(...run, ...reads, failed));
  const report = `
    const names = [...document.querySelectorAll(".row")].map((row) => row.querySelector(".label").textContent);
    const text = document.querySelector("#rows").innerText;
    const shown = JSON.stringify({ names, text, title: document.title });
    document.documentElement.replaceChildren(document.createElement("body"));
    document.body.textContent = "SHOWN" + btoa(unescape(encodeURIComponent(shown))) + "END";`;
  const row = `const row = (name) => [...document.querySelectorAll(".row")].find((row) => row.querySelector(".label").textContent === name);`;
  const driven = page
    .replace(/<meta http-equiv="Content-Security-Policy"[^>]*>/, "")
    .replace("</body>", () => `<script>${row}${actions};${report}</script></body>`);
  const path = join(await tempFolder(t), "trace.html");
  await writeFile(path, driven);
  const dom = await runChromium(chromium ?? "", ["--dump-dom", pathToFileURL(path).href]);
  const [, encoded] = /SHOWN([\w+/=]+)END/.exec(dom) ?? [];
  assert.ok(encoded, `the page's script stopped: ${dom.slice(0, 500)}`);
  return JSON.parse(Buffer.from(encoded, "base64").toString());
}

const tree = ["RequestRun", "send a", "process a", "prepare", "report", "send b", "process b"];

test("the page shows the tree with groups folded, and opens one at a click", { skip }, async (t) => {
  const before = await shownAfter(t, "");
  assert.deepEqual(before.names, [...tree, "artifact get", "failed"]);
  const after = await shownAfter(t, `row("artifact get").click()`);
  assert.deepEqual(after.names, [...tree, ...Array(6).fill("artifact get"), "failed"]);
  const folded = await shownAfter(t, `row("send a").querySelector(".fold").click()`);
  assert.deepEqual(folded.names, ["RequestRun", "send a"]);
});

test("a click on a span shows its error and attributes, as text", { skip }, async (t) => {
  const { text, title } = await shownAfter(t, `row("failed").click()`);
  assert.match(text, /Attributes\s+note\s+<script>document\.title/);
  assert.match(text, /gone: <script>/);
  assert.equal(title, "Run run-1");
});

test("the filter keeps lines that match, and those above them", { skip }, async (t) => {
  const filter = (text: string) =>
    `const box = document.querySelector("#filter"); box.value = ${JSON.stringify(text)}; box.oninput()`;
  const { names } = await shownAfter(t, filter("sha256:3"));
  assert.deepEqual(names, ["RequestRun", "send a", "process a", "send b", "process b", "artifact get", "artifact get"]);
  assert.deepEqual((await shownAfter(t, filter("no such thing"))).names, []);
});

test("zooming to a span leaves the other bars out, and the keys of a tree move and fold", { skip }, async (t) => {
  const zoomed = await shownAfter(
    t,
    `row("prepare").click(); document.querySelector(".zoom").click(); document.title = String(row("process b").querySelectorAll(".bar").length)`,
  );
  assert.equal(zoomed.title, "0");
  const press = (name: string, key: string) =>
    `row("${name}").dispatchEvent(new KeyboardEvent("keydown", { key: "${key}" }))`;
  assert.deepEqual((await shownAfter(t, press("process a", "ArrowLeft"))).names, ["RequestRun", "send a", "process a"]);
  const moved = await shownAfter(
    t,
    `${press("send a", "ArrowDown")}; document.title = document.activeElement.querySelector(".label").textContent`,
  );
  assert.equal(moved.title, "process a");
});

test("the page's own policy lets its style and script run", { skip }, async (t) => {
  const path = join(await tempFolder(t), "trace.html");
  await writeFile(path, htmlPage(viewFrom(...run)));
  const dom = await runChromium(chromium ?? "", ["--dump-dom", pathToFileURL(path).href]);
  assert.equal(dom.match(/role="treeitem"/g)?.length, run.length);
});
