import { spawn } from "node:child_process";
import { once } from "node:events";

/** What opens a file as a click on it would, by platform; anything else is taken for a free desktop. */
const openers: Readonly<Partial<Record<NodeJS.Platform, readonly [string, ...string[]]>>> = {
  darwin: ["open"],
  // `start` belongs to the shell, and takes a first word in quotes for a title.
  win32: ["cmd", "/c", "start", '""'],
};

/** Opens a file with the program that the person has chosen for its kind, and does not wait for that to end. */
export async function openFile(path: string): Promise<{ readonly program: string; readonly started: boolean }> {
  const [program, ...args] = openers[process.platform] ?? ["xdg-open"];
  const child = spawn(program, [...args, path], { detached: true, stdio: "ignore" });
  child.unref();
  try {
    await once(child, "spawn");
    return { program, started: true };
  } catch {
    // There is no such program; the caller says what to do instead.
    return { program, started: false };
  }
}
