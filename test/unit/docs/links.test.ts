import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";

const root = join(import.meta.dirname, "../../..");
const below = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((path) => join(folder, path));
const pages = [
  "README.md",
  "CONTRIBUTING.md",
  "client/README.md",
  "examples/README.md",
  ...below("docs"),
  ...below("deploy"),
].filter((path) => path.endsWith(".md") && existsSync(join(root, path)));
const read = (page: string) => readFileSync(join(root, page), "utf8");

/** Anchors of a page's headings, as GitHub makes them. */
function anchorsOf(page: string): string[] {
  return [...read(page).matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"),
  );
}

test("links within the repository lead to a file and a heading that are there", () => {
  for (const page of pages) {
    for (const [, target = ""] of read(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path = "", anchor] = target.split("#");
      const file = path === "" ? page : join(dirname(page), path);
      assert.ok(existsSync(join(root, file)), `${page}: ${target}`);
      if (anchor !== undefined && file.endsWith(".md"))
        assert.ok(anchorsOf(file).includes(anchor), `${page}: ${target}`);
    }
  }
});

test("files and folders that the pages name exist", () => {
  for (const page of pages) {
    for (const [, path = ""] of read(page).matchAll(
      /`((?:bench|cli|client|deploy|docs|examples|lib|proto|scripts|services|test)\/[\w./-]+)`/g,
    )) {
      assert.ok(existsSync(join(root, path)), `${page}: ${path}`);
    }
  }
});
