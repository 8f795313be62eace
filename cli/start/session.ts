import { join } from "node:path";
import type { Style } from "../format.ts";
import type { Screen } from "../screen.ts";
import type { StartOptions } from "./options.ts";

/** What the parts of `start` share. */
export interface Session {
  readonly options: StartOptions;
  readonly screen: Screen;
  readonly style: Style;
  readonly folders: Folders;
  /** Aborts at Ctrl-C. */
  readonly interrupted: AbortSignal;
}

/** Where everything that `start` keeps lies. */
export interface Folders {
  readonly nats: string;
  readonly logs: string;
  readonly traces: string;
  readonly artifacts: string;
  readonly samples: string;
  readonly curves: string;
}

export function foldersIn(home: string): Folders {
  return {
    nats: join(home, "nats"),
    logs: join(home, "logs"),
    traces: join(home, "traces"),
    artifacts: join(home, "artifacts"),
    samples: join(home, "samples"),
    curves: join(home, "curves"),
  };
}
