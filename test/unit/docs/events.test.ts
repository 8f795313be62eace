import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { eventTypes } from "../../../lib/bus/event-types.ts";
import { eventDocs, run } from "../../../scripts/generate-event-docs.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

test("docs/events.md is what the contracts say", async () => {
  assert.equal(await run(["--check"]), 0);
});

test("--check fails on a page that is out of date or missing, and says how to write it anew", async (t) => {
  const error = t.mock.method(console, "error", () => {});
  const file = join(await tempFolder(t), "events.md");
  assert.equal(await run(["--check"], file), 1);
  await writeFile(file, "# Events\n");
  assert.equal(await run(["--check"], file), 1);
  assert.equal(await readFile(file, "utf8"), "# Events\n");
  assert.match(String(error.mock.calls[1]?.arguments[0]), /run: node .*generate-event-docs\.ts$/);
  assert.equal(await run([], file), 0);
  assert.equal(await run(["--check"], file), 0);
});

test("the page has every event, a description of every field, and no link that leads nowhere", async () => {
  const text = await eventDocs();
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) => heading);
  for (const { options } of eventTypes.values()) assert.ok(headings.includes(options.name), options.name);
  assert.deepEqual(text.match(/^\| \d+ \| .*\| {2}\|$/gm), null, "fields without a comment");
  const anchors = headings.map((heading) =>
    heading
      .toLowerCase()
      .replaceAll(" ", "-")
      .replaceAll(/[^a-z0-9_-]/g, ""),
  );
  assert.equal(new Set(anchors).size, anchors.length, "two headings with one anchor");
  for (const [, anchor = ""] of text.matchAll(/\]\(#([^)]*)\)/g)) assert.ok(anchors.includes(anchor), anchor);
});
