import type { TestContext } from "node:test";

/** Collects the `after` hooks of helpers for what a whole file shares, where there is no test whose context they could use. */
export interface Stack extends Pick<TestContext, "after"> {
  /** Runs the hooks in the order in which they were registered, as a test does. */
  dispose(): Promise<void>;
}

export function createStack(): Stack {
  const hooks: (() => unknown)[] = [];
  return {
    after: (hook) => {
      if (hook !== undefined) hooks.push(hook as () => unknown);
    },
    dispose: async () => {
      for (const hook of hooks) await hook();
    },
  };
}
