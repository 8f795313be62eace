import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** The oldest nats-server that Millrace runs on: the one Debian 12 carries. */
export const oldestSupportedVersion = "2.9.10";

/** File name of the server's program on this platform. */
export const programName = process.platform === "win32" ? "nats-server.exe" : "nats-server";

/** A nats-server program on this machine that was started once to ask for its version. */
export interface NatsServerBinary {
  /** Path of the program. */
  readonly path: string;
  /** Such as "2.10.27". */
  readonly version: string;
}

/** A place that a nats-server can be had from without root. */
export interface BinarySource {
  /** For people: "the official release 2.15.1". */
  readonly name: string;
  /** Fetches the program into an empty folder of the caller's and returns its path. Throws an Error that says why it could not. */
  fetch(folder: string): Promise<string>;
}

/** Asks a program for its version. Throws a plain Error that says why it cannot serve: not runnable, no nats-server, too old. */
export async function inspectBinary(path: string): Promise<NatsServerBinary> {
  const { stdout } = await run(path, ["--version"], { timeout: 10_000 });
  const version = /^nats-server: v(\d+\.\d+\.\d+)/m.exec(stdout)?.[1];
  if (version === undefined) throw new Error(`${path} --version did not answer as a nats-server does`);
  if (compareVersions(version, oldestSupportedVersion) < 0) {
    throw new Error(`${path} is version ${version}; Millrace needs ${oldestSupportedVersion} or later`);
  }
  return { path, version };
}

/** Negative, zero or positive, as for sorting. Both versions have the form "1.2.3". */
export function compareVersions(left: string, right: string): number {
  return left.localeCompare(right, "en", { numeric: true });
}
