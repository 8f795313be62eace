/** The order in which items are taken; within a priority, in the order in which they came. */
export const priorities = ["high", "normal", "low"] as const;
export type Priority = (typeof priorities)[number];

/** What can wait in a queue, in one at a time. */
export interface Queueable {
  readonly priority: Priority;
  /** Where it is in the queue that it is in. For the queue. */
  place?: Place<this> | undefined;
}

/** Items in order of priority, any of which may leave at any time. */
export interface PriorityQueue<T> {
  readonly size: number;
  /** How many would be taken before one of this priority that comes now. */
  ahead(priority: Priority): number;
  add(item: T): void;
  /** Does nothing if it is not in this queue. */
  delete(item: T): void;
  /** The next in order, which stays. */
  peek(): T | undefined;
  /** Takes the next out, up to so many. */
  take(count: number): T[];
  /** In order. */
  [Symbol.iterator](): Iterator<T>;
}

/** An item among its neighbours. Out of its queue it has none: an item that is over must not keep those that came after it. */
export interface Place<T> {
  readonly item: T;
  readonly line: Line<T>;
  before: Place<T> | undefined;
  behind: Place<T> | undefined;
}

/** Items of one priority. */
interface Line<T> {
  first: Place<T> | undefined;
  last: Place<T> | undefined;
  size: number;
}

/**
 * The lines are linked, and not held in a Set: of a set that lives long V8 leaves the tables behind that it has outgrown, each with what was in it
 * and a link to the next, so that once one of them is old, every item that ever waits outlives its request.
 */
export function createPriorityQueue<T extends Queueable>(): PriorityQueue<T> {
  const line = (): Line<T> => ({ first: undefined, last: undefined, size: 0 });
  const lines = { high: line(), normal: line(), low: line() };
  const ahead = (priority: Priority): number =>
    lines.high.size + (priority === "high" ? 0 : lines.normal.size) + (priority === "low" ? lines.low.size : 0);
  const first = (): Place<T> | undefined => lines.high.first ?? lines.normal.first ?? lines.low.first;

  function remove(place: Place<T>): T {
    const { item, line: from, before, behind } = place;
    if (before === undefined) from.first = behind;
    else before.behind = behind;
    if (behind === undefined) from.last = before;
    else behind.before = before;
    from.size--;
    place.before = undefined;
    place.behind = undefined;
    item.place = undefined;
    return item;
  }

  return {
    get size() {
      return ahead("low");
    },
    ahead,
    add(item) {
      const to = lines[item.priority];
      const place: Place<T> = { item, line: to, before: to.last, behind: undefined };
      if (to.last === undefined) to.first = place;
      else to.last.behind = place;
      to.last = place;
      to.size++;
      item.place = place;
    },
    delete({ place, priority }) {
      if (place?.line === lines[priority]) remove(place);
    },
    peek: () => first()?.item,
    take(count) {
      const taken: T[] = [];
      for (let next = first(); next !== undefined && taken.length < count; next = first()) taken.push(remove(next));
      return taken;
    },
    *[Symbol.iterator]() {
      for (const priority of priorities) {
        for (let place = lines[priority].first; place !== undefined; place = place.behind) yield place.item;
      }
    },
  };
}
