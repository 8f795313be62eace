/** A process that records one span and stops; its exit tells how telemetry behaves at the end of a process. */
import { createLogger } from "../../../lib/log.ts";
import { startTelemetry } from "../../../lib/telemetry/sdk.ts";
import { withSpan } from "../../../lib/telemetry/spans.ts";

const logger = createLogger({ service: "one-span" });
const telemetry = await startTelemetry({ service: "one-span", version: "0.0.0", logger });
await withSpan("the only span", {}, () => {});
const startedMs = performance.now();
await telemetry.shutdown();
logger.info({ event: "stopped", shutdownMs: performance.now() - startedMs });
