// Builds the package that is published: plain JavaScript with types, the generated code in it. `npm run build -w client`
// writes it to client/dist; another folder may be named.
import { execFileSync } from "node:child_process";
import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const here = import.meta.dirname;
const out = resolve(process.argv[2] ?? join(here, "dist"));

rmSync(out, { recursive: true, force: true });
execFileSync("tsc", ["-p", here, "--outDir", out], { stdio: "inherit", shell: process.platform === "win32" });
copyFileSync(join(here, "README.md"), join(out, "README.md"));
copyFileSync(join(here, "../LICENSE"), join(out, "LICENSE"));

// The manifest here leads to the sources, so that the repository needs no build; what is published leads to what was built.
const {
  private: _,
  scripts: __,
  exports,
  imports,
  ...manifest
} = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const published = {
  ...manifest,
  sideEffects: false,
  exports: { ...built(exports), "./gen/*": "./gen/*.js" },
  imports: built(imports),
};
writeFileSync(join(out, "package.json"), `${JSON.stringify(published, undefined, 2)}\n`);

/** "./client.ts" becomes "./client/client.js", however deep it lies. */
function built(entries) {
  const text = JSON.stringify(entries).replaceAll(/"\.\/([\w-]+)\.ts"/g, '"./client/$1.js"');
  return JSON.parse(text);
}
