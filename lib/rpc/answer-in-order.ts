/** How much of a stream is worked on at a time: the next request is read while there is less. */
export interface Ahead<Request> {
  readonly count: number;
  /** By `sizeOf`. Default: any. */
  readonly size?: number;
  readonly sizeOf?: (request: Request) => number;
}

/**
 * Answers the requests of a stream in their order, several of them worked on at a time. A request is read only when less than `ahead` says
 * is being answered, so a client that sends faster than it is served, or that does not read, is held back by the connection's flow control.
 *
 * When an answer fails, the stream ends with its error, and so it does when the requests do. No more requests are read then.
 */
export async function* answerInOrder<Request, Response>(
  requests: AsyncIterable<Request>,
  { count, size = Number.POSITIVE_INFINITY, sizeOf = () => 0 }: Ahead<Request>,
  answer: (request: Request) => Promise<Response>,
): AsyncGenerator<Response> {
  const iterator = requests[Symbol.asyncIterator]();
  const open: { readonly size: number; readonly response: Promise<Response> }[] = [];
  let openSize = 0;
  /** The request that is waited for; undefined when enough are open or no more come. */
  let reading: Promise<"read"> | undefined;
  let ended = false;

  async function read(): Promise<"read"> {
    const next = await iterator.next();
    if (next.done) ended = true;
    else {
      const opened = { size: sizeOf(next.value), response: handled(answer(next.value)) };
      open.push(opened);
      openSize += opened.size;
    }
    return "read";
  }

  try {
    for (;;) {
      if (!ended && open.length < count && openSize < size) reading ??= handled(read());
      const [first] = open;
      if (first === undefined && reading === undefined) return;
      const answered = first?.response.then(() => "answered" as const);
      const came = await Promise.race([reading, answered].filter((each) => each !== undefined));
      if (came === "read") reading = undefined;
      else {
        open.shift();
        openSize -= first?.size ?? 0;
        yield (await first?.response) as Response;
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
