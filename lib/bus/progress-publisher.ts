import { type OrderedPublisher, orderedPublisher } from "./ordered-publisher.ts";
import type { StageContext } from "./stage.ts";

const intervalMs = 500;

/**
 * Publishes progress at most twice a second. Reports in between are left out; one that cannot be stored is only logged,
 * since progress is for people to watch and must not fail the work that it reports on.
 */
export function progressPublisher(context: StageContext): OrderedPublisher {
  const reports = orderedPublisher(context);
  let lastMs = Number.NEGATIVE_INFINITY;
  return {
    publish: (message, key) => {
      const nowMs = performance.now();
      if (nowMs - lastMs < intervalMs) return;
      lastMs = nowMs;
      reports.publish(message, key);
    },
    settled: () =>
      reports.settled().catch((error: unknown) => {
        context.logger.warn({ event: "progress.lost", error }, "some progress events were not stored");
      }),
  };
}
