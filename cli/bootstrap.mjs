// The first file that `npm start` runs. It is plain JavaScript and imports nothing, because in a fresh clone the
// dependencies are not there yet: it installs them if need be, then hands over to the command in TypeScript.
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Millrace needs Node 20.19 or later; this is ${process.version}. See https://nodejs.org`);
  process.exit(1);
}

if (!installed()) install();

// As in lib/type-script.ts, which nothing could read before.
if (major < 24) {
  const { register } = await import("tsx/esm/api");
  register();
}
await import("./main.ts");

/** npm writes node_modules/.package-lock.json when it has installed what package-lock.json asks for. */
function installed() {
  const modifiedMs = (path) => statSync(new URL(path, import.meta.url), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return modifiedMs("../node_modules/.package-lock.json") >= modifiedMs("../package-lock.json");
}

function install() {
  console.log("Installing dependencies (npm ci), once ...");
  const npm = process.env.npm_execpath;
  const [command, args] = npm ? [process.execPath, [npm, "ci"]] : ["npm", ["ci"]];
  const options = { cwd: root, stdio: "inherit", shell: npm === undefined && process.platform === "win32" };
  const { status } = spawnSync(command, args, options);
  if (status !== 0) {
    console.error("npm ci failed; its messages above say why. Nothing was started.");
    process.exit(1);
  }
}
