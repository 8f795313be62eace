import { orAborted } from "../../lib/abort.ts";
import { userCacheFolder } from "../../lib/cache-folder.ts";
import { maskCredentials } from "../../lib/config.ts";
import { AppError } from "../../lib/errors.ts";
import { findNatsServer } from "../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../lib/nats-server/server-process.ts";
import { seconds } from "../format.ts";
import type { Session } from "./session.ts";

/** A broker to use; disposing of it stops one that was started here and leaves alone one that was not. */
export interface Broker extends AsyncDisposable {
  readonly url: string;
  /** Rejects with BROKER_UNAVAILABLE if a server that was started here ends without having been told to. */
  readonly failed: Promise<never>;
}

/** The server of MILLRACE_NATS_URL, or one of our own with its store below the home folder. */
export async function startBroker({ screen, style, folders, interrupted }: Session): Promise<Broker> {
  const running = process.env.MILLRACE_NATS_URL;
  if (running) {
    screen.line(`  broker       ${maskCredentials(running)}`);
    return { url: running, failed: new Promise(() => {}), [Symbol.asyncDispose]: async () => {} };
  }
  const startedMs = performance.now();
  const onProgress = (message: string) => screen.line(`  ${style.dim(message)}`);
  const finding = findNatsServer({ env: process.env, cacheFolder: userCacheFolder(process.env), onProgress });
  const binary = await orAborted(finding, interrupted);
  const server = await launchNatsServer({ binary, storeFolder: folders.nats });
  const took = style.dim(`(${seconds((performance.now() - startedMs) / 1000)})`);
  screen.line(`  broker       nats-server ${server.version} at ${server.url} ${took}`);
  let isStopping = false;
  const failed = server.exited.then(({ status, signal, lastLines }): Promise<never> => {
    if (isStopping) return new Promise(() => {});
    const how = signal === undefined ? `ended with status ${status}` : `was ended by ${signal}`;
    throw new AppError("BROKER_UNAVAILABLE", `nats-server ${how}; its last words:\n${lastLines}`);
  });
  // Whoever waits for it hears of it; a failure before that is no unhandled one.
  failed.catch(() => undefined);
  return {
    url: server.url,
    failed,
    [Symbol.asyncDispose]() {
      isStopping = true;
      return server.stop();
    },
  };
}
