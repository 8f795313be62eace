import { execFileSync } from "node:child_process";
import packageJson from "../package.json" with { type: "json" };

/** Millrace's version, such as "0.1.0". */
export const version: string = packageJson.version;

let known: string | undefined;

/** The version with the commit it runs from, such as "0.1.0+4f2c1d9"; without one where there is no git checkout. */
export function codeVersion(): string {
  known ??= version + commitSuffix();
  return known;
}

function commitSuffix(): string {
  try {
    const commit = execFileSync("git", ["rev-parse", "--short=12", "HEAD"], {
      cwd: import.meta.dirname,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
      timeout: 2_000,
    });
    return `+${commit.trim()}`;
  } catch {
    // An installed copy or a container has no repository: the version alone must do.
    return "";
  }
}
