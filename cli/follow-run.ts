import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import type { MillraceClient } from "../client/client.ts";
import type { Run, RunEvent } from "../gen/millrace/v1/pipeline_pb.ts";

/** An event of a run, and the run after it. */
export interface RunUpdate {
  readonly event: RunEvent;
  readonly run: Run;
}

const pauseMs = 200;

/**
 * The events of a run, each once and in order, until it has ended. A pipeline service that dies meanwhile is waited for:
 * watching begins again, and what was seen is left out. That there is no such run is final: the service says so only once it has read
 * its stream.
 */
export async function* followRun(
  pipeline: MillraceClient["pipeline"],
  runId: string,
  signal: AbortSignal,
): AsyncGenerator<RunUpdate> {
  let seen = 0n;
  let ended = false;
  while (!ended) {
    try {
      for await (const { event, run } of pipeline.watchRun({ runId }, { signal })) {
        if (event === undefined || run === undefined || event.sequence <= seen) continue;
        seen = event.sequence;
        yield { event, run };
      }
      ended = true;
    } catch (thrown) {
      if (signal.aborted || ConnectError.from(thrown).code !== Code.Unavailable) throw thrown;
      await delay(pauseMs, undefined, { signal });
    }
  }
}
