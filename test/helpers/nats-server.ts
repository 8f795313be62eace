import type { TestContext } from "node:test";
import type { NatsServerBinary } from "../../lib/nats-server/program.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { tempFolder } from "./temp-folder.ts";

export interface StartNatsOptions {
  /** Lines added to the server's configuration. */
  readonly extraConfig?: string;
  /** A store to open. Default: an empty temporary folder. */
  readonly storeFolder?: string;
}

/** A real nats-server of the test's own. The address stays the same over stops and restarts. */
export interface TestNats {
  readonly url: string;
  readonly port: number;
  readonly monitorUrl: string;
  readonly storeFolder: string;
  /** Process id of the present server, to send it SIGSTOP and SIGCONT. */
  readonly pid: number;
  /** Ends the server in an orderly way. The store stays. */
  stop(): Promise<void>;
  /** Ends the server with SIGKILL and waits until it is gone. The store stays. */
  kill(): Promise<void>;
  /** Stops the server if it runs, and starts it on the same port and store. */
  restart(): Promise<void>;
}

let binary: Promise<NatsServerBinary> | undefined;

/** The machine's nats-server, looked for once a process; the first test on a machine may download it. */
function machineBinary(): Promise<NatsServerBinary> {
  binary ??= findNatsServer({ env: process.env, onProgress: (line) => console.error(`# ${line}`) });
  return binary;
}

/**
 * Starts a nats-server with JetStream on a free port of loopback, with an empty store, and stops it when the test ends.
 *
 * `after` hooks run in the order they were registered: close a connection inside the test, or with `using`, before the
 * server goes.
 */
export async function startNats(t: Pick<TestContext, "after">, options: StartNatsOptions = {}): Promise<TestNats> {
  let stop = async () => {};
  t.after(() => stop()); // registered before the folder's removal, so that it runs before it
  const storeFolder = options.storeFolder ?? (await tempFolder(t));
  const { extraConfig = "" } = options;
  const settings = { binary: await machineBinary(), storeFolder, extraConfig };
  let server = await launchNatsServer(settings);
  const { url, port } = server;
  stop = async () => {
    resume(server.pid); // a server that a test has paused cannot hear SIGTERM
    await server.stop();
  };
  return {
    url,
    port,
    storeFolder,
    get monitorUrl() {
      return server.monitorUrl;
    },
    get pid() {
      return server.pid;
    },
    stop,
    async kill() {
      process.kill(server.pid, "SIGKILL");
      await server.exited;
    },
    async restart() {
      await stop();
      server = await launchNatsServer({ ...settings, port });
    },
  };
}

function resume(pid: number): void {
  try {
    process.kill(pid, "SIGCONT");
  } catch {
    // It has ended already.
  }
}
