import cluster from "node:cluster";
import { setTimeout as delay } from "node:timers/promises";
import type { z } from "zod";
import { openArtifactStore } from "./artifacts/open-artifact-store.ts";
import type { ArtifactStore } from "./artifacts/store.ts";
import { type Bus, openBus } from "./bus/bus.ts";
import { type RunningStage, type Stage, startStage } from "./bus/stage.ts";
import { type Config, type ConfigSchema, describeConfig, loadConfig } from "./config.ts";
import { AppError } from "./errors.ts";
import { createLogger, type Logger } from "./log.ts";
import { createRegistry, type Registry } from "./registry/registry.ts";
import { createHealth, type Health } from "./rpc/health.ts";
import type { HttpHandler } from "./rpc/port.ts";
import { createRpcServer, type ListeningServer, type RpcService } from "./rpc/server.ts";
import { readTlsIdentity, tlsFilesOf, watchTlsFiles } from "./rpc/tls-files.ts";
import { observeMetrics } from "./telemetry/metrics.ts";
import { startTelemetry, type Telemetry } from "./telemetry/sdk.ts";
import { version } from "./version.ts";
import { runWorkers } from "./workers.ts";

/** What every service is given to do its work with. */
export interface ServiceContext<Own extends z.ZodRawShape> {
  readonly config: Config<Own>;
  readonly logger: Logger;
  readonly bus: Bus;
  readonly artifacts: ArtifactStore;
  readonly registry: Registry;
  /** Which process of the service this is. */
  readonly instanceId: string;
  /** Says that the service cannot serve for now, or can again: its health follows. It can, until something else is said. */
  setServing(serving: boolean): void;
  /** Whether its health says that it serves: no sooner than it has started, and no longer once it drains. */
  isServing(): boolean;
}

/** What a service is made of. */
export interface ServiceParts {
  readonly routes: readonly RpcService[];
  readonly stage?: Stage;
  /** Takes the paths that are no RPCs. Default: there is nothing at them. */
  readonly fallback?: HttpHandler;
  /** The service counts as serving once this has resolved. */
  readonly ready?: Promise<unknown>;
  /** Disposed when the service stops, after the stage and before the connections. */
  readonly resources?: readonly AsyncDisposable[];
}

export interface RunOptions<Own extends z.ZodRawShape> {
  /** In how many processes the service runs, all of which share its port. Default: 1. */
  readonly workers?: (config: Config<Own>) => number;
}

/**
 * Runs a service until SIGTERM or SIGINT: configuration, telemetry, broker, artifacts, RPC server, stage. It waits for a
 * broker that is not there yet. Stopping: health says NOT_SERVING, the stage gives back the message in its hands, calls
 * under way may finish, spans and logs are flushed.
 */
export async function runService<Own extends z.ZodRawShape>(
  schema: ConfigSchema<Own>,
  build: (context: ServiceContext<Own>) => ServiceParts | Promise<ServiceParts>,
  { workers = () => 1 }: RunOptions<Own> = {},
): Promise<void> {
  const stopping = stopSignal();
  const { service } = schema;
  let logger = createLogger({ service });
  let telemetry: Telemetry | undefined;
  try {
    const config = loadConfig(schema);
    const { instanceId, traceDir, traceShare, logLevel: level } = config;
    logger = createLogger({ service, level });
    const count = workers(config);
    if (cluster.isPrimary && count > 1) {
      const variable = `MILLRACE_${service.toUpperCase()}_INSTANCE_ID`;
      const env = (n: number) => ({ [variable]: `${instanceId}-${n}` });
      await runWorkers({ count, env, logger, stopping });
      return;
    }
    telemetry = await startTelemetry({ service, version, instanceId, traceDir, traceShare, logger });
    logger = createLogger({ service, level, copy: telemetry.logStream });
    logger.info({ event: "service.starting", config: describeConfig(config), version }, `${service} is starting`);
    await work(build, { config, service, logger, telemetry, stopping });
    logger.info({ event: "service.stopped" }, `${service} has stopped`);
  } catch (thrown) {
    const error = AppError.from(thrown);
    // Work that a stop has interrupted says so, and is no failure.
    if (stopping.aborted && (error.code === "SHUTTING_DOWN" || error.code === "CANCELLED")) return;
    logger.fatal({ event: "service.failed", error }, error.message);
    process.exitCode = 1;
  } finally {
    // Last of all, so that the reason for which a service ended is delivered as well.
    await telemetry?.shutdown();
  }
}

interface Process<Own extends z.ZodRawShape> {
  readonly config: Config<Own>;
  readonly service: string;
  readonly logger: Logger;
  readonly telemetry: Telemetry;
  readonly stopping: AbortSignal;
}

/** From the connection to the broker to its end. */
async function work<Own extends z.ZodRawShape>(
  build: (context: ServiceContext<Own>) => ServiceParts | Promise<ServiceParts>,
  { config, service, logger, telemetry, stopping }: Process<Own>,
): Promise<void> {
  await using bus = await connectBus(config, service, logger, stopping);
  await using artifacts = await openArtifactStore(config.artifacts, { nc: bus.nc, replicas: config.replicas });
  const readiness = createReadiness();
  const registry = createRegistry(bus);
  const { health, setServing } = readiness;
  const { instanceId } = config;
  const isServing = () => health.serving;
  const parts = await build({ config, logger, bus, artifacts, registry, instanceId, setServing, isServing });
  await serve(parts, { config, bus, logger, stopping, readiness, telemetry });
}

/**
 * Aborts at the first SIGTERM or SIGINT, and when the process that started this one over an IPC channel is gone. A second
 * signal ends the process as usual.
 */
function stopSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = (by: string) => controller.abort(new AppError("SHUTTING_DOWN", `the service was stopped by ${by}`));
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => stop(name));
  process.once("disconnect", () => stop("the end of its parent"));
  process.channel?.unref();
  return controller.signal;
}

const connectPauseMs = 1_000;

async function connectBus(
  config: Config<z.ZodRawShape>,
  service: string,
  logger: Logger,
  stopping: AbortSignal,
): Promise<Bus> {
  for (;;) {
    try {
      return await openBus({
        url: config.natsUrl,
        service,
        logger,
        replicas: config.replicas,
        maxEventBytes: config.maxEventBytes,
        serverTraces: config.natsTraces === "on",
      });
    } catch (thrown) {
      const error = AppError.from(thrown);
      // A broker that is there and refuses, for want of space for example, has to be mended by a person: say so and end.
      if (error.code !== "BROKER_UNAVAILABLE") throw error;
      logger.warn({ event: "broker.waiting", error }, `${error.message}; trying again`);
      await delay(connectPauseMs, undefined, { signal: stopping });
    }
  }
}

/** Health as two halves see it: the service has started, and nothing is wrong with it. */
interface Readiness {
  readonly health: Health;
  setStarted(): void;
  setServing(serving: boolean): void;
}

function createReadiness(): Readiness {
  const health = createHealth();
  let [started, able] = [false, true];
  return {
    health,
    setStarted() {
      started = true;
      health.setAll(able);
    },
    setServing(serving) {
      able = serving;
      health.setAll(started && able);
    },
  };
}

interface Serving {
  readonly readiness: Readiness;
  readonly config: Config<z.ZodRawShape>;
  readonly bus: Bus;
  readonly logger: Logger;
  readonly stopping: AbortSignal;
  readonly telemetry: Telemetry;
}

async function serve(
  parts: ServiceParts,
  { config, bus, logger, stopping, readiness, telemetry }: Serving,
): Promise<void> {
  const { health } = readiness;
  const { routes: services, fallback } = parts;
  const { corsOrigins, maxConnectionAgeMs } = config;
  const { metricsText } = telemetry;
  const tlsFiles = tlsFilesOf(config);
  const tls = tlsFiles && (await readTlsIdentity(tlsFiles));
  const optional = { ...(fallback && { fallback }), ...(tls && { tls }) };
  const accessTokens = config.accessToken?.split(",") ?? [];
  const about = { corsOrigins, accessTokens, metricsText, limits: { maxConnectionAgeMs } };
  const server = createRpcServer({ services, health, logger, ...about, ...optional });
  const stopObserving = observeMetrics(["millrace.service.serving"], ({ observe }) =>
    observe("millrace.service.serving", health.serving ? 1 : 0, {}),
  );
  let listening: ListeningServer | undefined;
  let stage: RunningStage | undefined;
  let watching: Disposable | undefined;
  try {
    // A worker shares its port with others that can answer: it takes no connection before it can.
    if (cluster.isWorker) await Promise.race([parts.ready, aborted(stopping)]);
    listening = await server.listen({ host: config.host, port: config.port });
    watching = tlsFiles && watchTlsFiles({ files: tlsFiles, logger }, listening.setIdentity);
    await Promise.race([parts.ready, aborted(stopping)]);
    if (stopping.aborted) return;
    stage = parts.stage && startStage(bus, { ackWaitMs: config.ackWaitMs, ...parts.stage });
    readiness.setStarted();
    logger.info({ event: "service.ready", url: listening.url }, `${bus.service} answers at ${listening.url}`);
    await Promise.race([aborted(stopping), lost(bus)]);
  } finally {
    watching?.[Symbol.dispose]();
    stopObserving();
    await Promise.all([listening?.close(config.shutdownGraceMs), stage?.stop()]);
    for (const resource of parts.resources ?? []) await resource[Symbol.asyncDispose]();
  }
}

/** Rejects when the connection to the broker is closed for good, without which the service would only look alive. */
async function lost({ nc }: Bus): Promise<never> {
  const reason = await nc.closed();
  const text = "the connection to NATS is closed for good; start the service again";
  throw new AppError("BROKER_UNAVAILABLE", text, { cause: reason });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
