/** A process that sends one of each signal and stops; its exit tells how telemetry behaves at the end of a process. */
import { createLogger } from "../../../lib/log.ts";
import { recordMetric } from "../../../lib/telemetry/metrics.ts";
import { startTelemetry } from "../../../lib/telemetry/sdk.ts";
import { withSpan } from "../../../lib/telemetry/spans.ts";

const service = "one-signal";
const logger = createLogger({ service });
const telemetry = await startTelemetry({ service, version: "0.0.0", logger });
const sent = createLogger({ service, copy: telemetry.logStream });
await withSpan("the only span", {}, () => sent.info({ event: "test.logged" }, "the only line"));
recordMetric("millrace.training.loss", 1.5, { "millrace.network.name": "the only metric" });
const startedMs = performance.now();
await telemetry.shutdown();
logger.info({ event: "stopped", shutdownMs: performance.now() - startedMs });
