/**
 * Who may come in. A server that takes everything answers nothing in time once more comes than it gets through: so it refuses what would wait
 * too long, at once, while whoever asked can still go elsewhere or come again.
 */
import { AppError } from "../../lib/errors.ts";
import { createCrowdWatch } from "./crowd.ts";
import { createLoopLag } from "./loop-lag.ts";
import type { Priority } from "./priority-queue.ts";

export interface AdmissionLimits {
  /** Items in a batch at most, at least 1. While fewer wait, nobody is refused for the wait: the next batch has room. */
  readonly maxBatchSize: number;
  /** Items that may wait or be prepared. */
  readonly maxQueueLength: number;
  /**
   * The longest that an item may have to wait for those ahead of it, as far as that can be told when it comes. While more comes than can be
   * answered, a tenth of it: to let in more would make everybody wait, and answer nobody else.
   */
  readonly maxWaitMs: number;
}

export interface SubmitOptions {
  /**
   * Ends the waiting: the item leaves the queue, or if it is being run, its output is dropped. Rejects with the signal's reason. Asked for only
   * when the item is admitted, since it may have to be made.
   */
  readonly signal?: AbortSignal;
  /** Default normal. */
  readonly priority?: Priority;
  /** Milliseconds until the signal will abort. Who would wait longer is refused. Default: nothing is known of it. */
  readonly timeoutMs?: number;
  /** Whether it may wait for longer than maxWaitMs, as when whoever sends it sends no more meanwhile. Default false. */
  readonly isPatient?: boolean;
}

export interface AdmitOptions extends SubmitOptions {
  /** Items that come together. They are admitted or refused together, and do not count as ahead of each other. Default 1. */
  readonly count?: number;
}

/** What an item finds that comes. */
export interface Crowd {
  /** Items that wait or are prepared, of any priority. */
  readonly queueLength: number;
  /** Items that will be answered first, those in the running batch among them. */
  readonly ahead: number;
  /** Of these, how many no batch has taken yet. */
  readonly aheadInQueue: number;
  /** How long they will take. */
  readonly waitMs: number;
  /** How long those of any priority will take who are not patient. */
  readonly impatientMs: number;
}

export type Newcomer = Required<Pick<AdmitOptions, "count" | "timeoutMs" | "isPatient">>;

/** Shares of maxWaitMs: what an item may have to wait in a crowd, and what is so long a wait that it may be the sign of one. */
const crowdedShare = 0.1;
const longShare = 0.2;

/** Times to wait are rounded up to this, so that all who are refused at about the same time can be sent one answer. */
const retryStepMs = 10;

export interface Admission {
  /**
   * Throws QUEUE_FULL, with the time after which there will be room, if the newcomer would wait for too long or the queue become too long. Where
   * nothing is ahead nobody is refused.
   */
  check(newcomer: Newcomer, crowd: Crowd, limits: AdmissionLimits): void;
  /** Items have been answered. */
  noteAnswers(): void;
}

export function createAdmission(): Admission {
  const watch = createCrowdWatch();
  const loopLag = createLoopLag();
  let last: AppError | undefined;
  /** The same error as before if it says the same: to make and encode one is a good part of what it costs to refuse. */
  function refusal(reason: string, waitMs: number): AppError {
    const message = `${reason}; send this request again later`;
    const retryDelayMs = String(Math.max(1, Math.ceil(waitMs / retryStepMs)) * retryStepMs);
    if (last?.message !== message || last.details.retryDelayMs !== retryDelayMs) {
      last = new AppError("QUEUE_FULL", message, { details: { retryDelayMs } });
    }
    return last;
  }
  return {
    check({ count, timeoutMs, isPatient }, crowd, { maxBatchSize, maxQueueLength, maxWaitMs }) {
      const { queueLength, ahead, aheadInQueue, waitMs, impatientMs } = crowd;
      watch.noteArrival(impatientMs + loopLag(), longShare * maxWaitMs);
      if (queueLength > 0 && queueLength + count > maxQueueLength) {
        throw refusal(`at most ${maxQueueLength} images may wait, and there are too many`, waitMs);
      }
      if (ahead === 0) return;
      const limitMs = watch.isCrowded ? crowdedShare * maxWaitMs : maxWaitMs;
      if (!isPatient && waitMs > limitMs && aheadInQueue >= maxBatchSize) {
        watch.noteRefusal();
        // The queue is short in a crowd, but not for those who come back as soon as it says.
        throw refusal(`more images are ahead than can be answered within ${limitMs} ms`, Math.max(waitMs, maxWaitMs));
      }
      if (waitMs > timeoutMs) throw refusal("more images are ahead than can be answered before the deadline", waitMs);
    },
    noteAnswers: () => watch.noteAnswer(),
  };
}

/** How many bytes those who wait may have together. Their number alone does not bound the memory: an image may have 800 bytes or 8 MiB. */
export interface ByteBudget {
  /** Holds so many until disposed of. Throws QUEUE_FULL if there are too many then; where none are held it never does. */
  hold(bytes: number): Disposable;
}

export function createByteBudget(maxBytes: number): ByteBudget {
  let held = 0;
  let refusal: AppError | undefined;
  return {
    hold(bytes) {
      if (held > 0 && held + bytes > maxBytes) {
        const reason = `the images that wait may have at most ${maxBytes} bytes together, and have too many`;
        refusal ??= new AppError("QUEUE_FULL", `${reason}; send this request again later`);
        throw refusal;
      }
      held += bytes;
      return {
        [Symbol.dispose]() {
          held -= bytes;
        },
      };
    },
  };
}
