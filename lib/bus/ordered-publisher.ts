import type { Message } from "@bufbuild/protobuf";
import type { StageContext } from "./stage.ts";

/** Publishes events one after another, beside the work that they report on. */
export interface OrderedPublisher {
  /** Queues an event and returns at once. */
  publish(message: Message, key?: string): void;
  /** Resolves when all are stored, and rejects with the first error. */
  settled(): Promise<void>;
}

/** A publisher for a stage whose work calls back and cannot wait. */
export function orderedPublisher(context: StageContext): OrderedPublisher {
  let last: Promise<unknown> = Promise.resolve();
  return {
    publish: (message, key) => {
      last = last.then(() => context.publish(message, key));
      // Reported by settled(); until then a failure must not count as unhandled.
      last.catch(() => undefined);
    },
    settled: async () => {
      await last;
    },
  };
}
