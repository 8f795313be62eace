/**
 * Answers the requests of a stream in their order, several of them worked on at a time. A request is read only when fewer than `limit`
 * answers are open, so a client that sends faster than it is served, or that does not read, is held back by the connection's flow control.
 *
 * When an answer fails, the stream ends with its error, and so it does when the requests do. No more requests are read then.
 */
export async function* answerInOrder<Request, Response>(
  requests: AsyncIterable<Request>,
  limit: number,
  answer: (request: Request) => Promise<Response>,
): AsyncGenerator<Response> {
  const iterator = requests[Symbol.asyncIterator]();
  const open: Promise<Response>[] = [];
  /** The request that is waited for; undefined when enough are open or no more come. */
  let reading: Promise<"read"> | undefined;
  let ended = false;

  async function read(): Promise<"read"> {
    const next = await iterator.next();
    if (next.done) ended = true;
    else open.push(handled(answer(next.value)));
    return "read";
  }

  try {
    for (;;) {
      if (!ended && open.length < limit) reading ??= handled(read());
      const [first] = open;
      if (first === undefined && reading === undefined) return;
      const answered = first?.then(() => "answered" as const);
      const came = await Promise.race([reading, answered].filter((each) => each !== undefined));
      if (came === "read") reading = undefined;
      else {
        const next = await open.shift();
        yield next as Response;
      }
    }
  } finally {
    // Not awaited: the client may never send what is waited for.
    if (!ended) iterator.return?.().catch(() => undefined);
  }
}

/** A promise that is awaited later: until then its failure must not count as unhandled. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
