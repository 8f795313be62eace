import pino from "pino";
import { AppError } from "./errors.ts";
import { currentRunId, currentSpanIds } from "./telemetry/spans.ts";

/**
 * A structured logger. Each line names its event, so that lines can be found without reading prose.
 *
 * @example logger.info({ event: "model.loaded", version: 3 }, "model pictograms/3 is live")
 * @example logger.warn({ event: "artifact.retry", error }, "artifact store did not answer, trying again")
 */
export type Logger = pino.Logger;

export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LoggerOptions {
  /** Name of the service, the same as in its traces. */
  readonly service: string;
  /** Least severe level that is written; "info" by default. */
  readonly level?: LogLevel;
  /** Where the lines go; standard output by default. */
  readonly destination?: pino.DestinationStream;
  /** Gets every line as well. */
  readonly copy?: pino.DestinationStream | undefined;
}

/** How deep the causes of an error are written. */
const maxCauses = 4;

/**
 * JSON lines with ISO time, service and event; trace_id, span_id and run_id come from the work that is under way.
 * Put an error under the key `error`: it is written with code, message, retryable, stack and its causes.
 */
export function createLogger({ service, level = "info", destination, copy }: LoggerOptions): Logger {
  const options: pino.LoggerOptions = {
    level,
    base: { service, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    messageKey: "message",
    errorKey: "error",
    formatters: { level: (label) => ({ level: label }) },
    serializers: { error: (thrown: unknown) => errorFields(thrown) },
    mixin: () => ({ ...currentSpanIds(), ...currentRunId() }),
  };
  if (copy === undefined) return destination === undefined ? pino(options) : pino(options, destination);
  // The logger has the level; its streams take whatever comes.
  const streams = [destination ?? pino.destination(1), copy].map((stream) => ({ stream, level: "trace" as const }));
  return pino(options, pino.multistream(streams));
}

function errorFields(thrown: unknown, depth = 0): Record<string, unknown> {
  const error = AppError.from(thrown);
  const cause = thrown instanceof Error ? thrown.cause : undefined;
  return {
    code: error.code,
    message: error.message,
    retryable: error.retryable,
    ...(Object.keys(error.details).length > 0 && { details: error.details }),
    ...(thrown instanceof Error && { stack: thrown.stack }),
    ...(cause !== undefined && depth < maxCauses && { cause: errorFields(cause, depth + 1) }),
  };
}
