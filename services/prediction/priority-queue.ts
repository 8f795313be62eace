/** The order in which items are taken; within a priority, in the order in which they came. */
export const priorities = ["high", "normal", "low"] as const;
export type Priority = (typeof priorities)[number];

/** Items in order of priority, any of which may leave at any time. */
export interface PriorityQueue<T> {
  readonly size: number;
  /** How many would be taken before one of this priority that comes now. */
  ahead(priority: Priority): number;
  add(item: T): void;
  delete(item: T): void;
  /** The next in order, which stays. */
  peek(): T | undefined;
  /** Takes the next out, up to so many. */
  take(count: number): T[];
  /** In no order that means anything. */
  [Symbol.iterator](): Iterator<T>;
}

export function createPriorityQueue<T extends { readonly priority: Priority }>(): PriorityQueue<T> {
  // Sets keep their order and let go of an item anywhere in it.
  const queues = { high: new Set<T>(), normal: new Set<T>(), low: new Set<T>() };
  function* inOrder(): Generator<T> {
    for (const priority of priorities) yield* queues[priority];
  }
  const ahead = (priority: Priority): number => {
    const upTo = priorities.slice(0, priorities.indexOf(priority) + 1);
    return upTo.reduce((sum, each) => sum + queues[each].size, 0);
  };
  return {
    get size() {
      return ahead("low");
    },
    ahead,
    add: (item) => void queues[item.priority].add(item),
    delete: (item) => void queues[item.priority].delete(item),
    peek: () => inOrder().next().value,
    take(count) {
      const taken: T[] = [];
      for (const item of inOrder()) {
        if (taken.length === count) break;
        queues[item.priority].delete(item);
        taken.push(item);
      }
      return taken;
    },
    [Symbol.iterator]: inOrder,
  };
}
