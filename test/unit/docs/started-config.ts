import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { ServiceName } from "../../../lib/config.ts";

const root = join(import.meta.dirname, "../../..");

/**
 * The settings with which a service starts in an environment, as it writes them into its log. The process is ended then,
 * before it does anything. Throws what the service says where it refuses to start.
 */
export async function startedConfig(
  service: ServiceName,
  environment: Readonly<Record<string, string>>,
): Promise<Record<string, unknown>> {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(process.execPath, ["--import", "tsx", `services/${service}/main.ts`], {
    cwd: root,
    env: { PATH, HOME, ...environment },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  try {
    for await (const line of createInterface(child.stdout)) {
      const { event, config, message } = JSON.parse(line) as { event: string; config?: object; message: string };
      if (event === "service.starting") return { ...config };
      throw new Error(message);
    }
    throw new Error(`the ${service} service ended without a word`);
  } finally {
    child.kill("SIGKILL");
    await ended;
  }
}
