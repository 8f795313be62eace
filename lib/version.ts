import { execFileSync } from "node:child_process";
import { join } from "node:path";
import packageJson from "../package.json" with { type: "json" };

/** Millrace's version, such as "0.1.0". */
export const version: string = packageJson.version;

let known: string | undefined;

/**
 * The version with the commit it runs from, such as "0.1.0+4f2c1d9a8b7e", and "-dirty" where files differ from it; without
 * them where there is no git checkout.
 */
export function codeVersion(): string {
  known ??= version + commitSuffix();
  return known;
}

function commitSuffix(): string {
  // This package's own repository, not one that it happens to lie in; no tag matches the empty pattern.
  const args = ["--git-dir=.git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=12", "--match="];
  try {
    const commit = execFileSync("git", args, {
      cwd: join(import.meta.dirname, ".."),
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
