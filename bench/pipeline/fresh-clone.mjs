// How long a newcomer waits: from a fresh clone of the last commit to the end of `npm start -- --exit`, installation included.
//
//     node bench/pipeline/fresh-clone.mjs [runs, default 5]
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const runs = Number(process.argv[2] ?? 5);
const seconds = [];
for (let run = 0; run < runs; run++) {
  const folder = mkdtempSync(join(tmpdir(), "millrace-clone-"));
  try {
    execFileSync("git", ["clone", "-q", ".", folder]);
    const startedMs = performance.now();
    execFileSync("npm", ["--silent", "start", "--", "--exit"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
    seconds.push((performance.now() - startedMs) / 1000);
    console.log(`run ${run + 1}: ${seconds.at(-1)?.toFixed(1)} s`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
seconds.sort((a, b) => a - b);
console.log(
  `median ${seconds[Math.floor(runs / 2)]?.toFixed(1)} s, least ${seconds[0]?.toFixed(1)}, most ${seconds.at(-1)?.toFixed(1)} (n = ${runs})`,
);
