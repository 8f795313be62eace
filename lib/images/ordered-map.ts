/**
 * Works on several items at once and yields the results in the items' order.
 *
 * At most `limit` results exist that have not been taken: a slow consumer holds the workers back, so memory stays flat.
 * When one item fails, the iteration throws its error at the item's place and the others are left to end unheard.
 */
export async function* mapInOrder<Item, Result>(
  items: Iterable<Item>,
  limit: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result> {
  const running: Promise<Result>[] = [];
  for (const item of items) {
    const result = work(item);
    // Awaited below; until then a failure must not count as unhandled.
    result.catch(() => undefined);
    running.push(result);
    if (running.length >= limit) yield await (running.shift() as Promise<Result>);
  }
  for (const result of running) yield await result;
}
