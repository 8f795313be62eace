import type { IncomingHttpHeaders } from "node:http2";
import type { DescMethodUnary } from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, createContextValues, type HandlerContext } from "@connectrpc/connect";
import type { Ending } from "./server-errors.ts";

/** What a handler may ask about its call, and its deadline. What hardly any handler asks for is made when one does. */
export class UnaryContext implements HandlerContext, Ending {
  readonly method: DescMethodUnary;
  aborted = false;
  reason: unknown;
  /** Handlers take it out of its object. */
  readonly timeoutMs = () => Math.max(0, this.#deadline - performance.now());
  readonly #headers: IncomingHttpHeaders;
  readonly #deadline: number;
  readonly #timer: NodeJS.Timeout;
  #controller: AbortController | undefined;
  #giveUp: ((reason: unknown) => void) | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #values: ContextValues | undefined;

  constructor(method: DescMethodUnary, headers: IncomingHttpHeaders, timeoutMs: number) {
    this.method = method;
    this.#headers = headers;
    this.#deadline = performance.now() + timeoutMs;
    this.#timer = setTimeout(expire, timeoutMs, this);
  }

  get service() {
    return this.method.parent;
  }

  /** To make one costs a good part of refusing a call, which needs none. */
  get signal() {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.aborted) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  get requestMethod() {
    return "POST";
  }

  get protocolName() {
    return "grpc";
  }

  get url() {
    return `http://${this.#headers[":authority"] ?? ""}${this.#headers[":path"] ?? ""}`;
  }

  get requestHeader() {
    return headersFrom(this.#headers);
  }

  get responseHeader() {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get responseTrailer() {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }

  get values() {
    this.#values ??= createContextValues();
    return this.#values;
  }

  /** What the handler has set. */
  get sentHeader(): Headers | undefined {
    return this.#responseHeader;
  }

  get sentTrailer(): Headers | undefined {
    return this.#responseTrailer;
  }

  /** The result of `work`, or a rejection with the reason as soon as the call is aborted. For one piece of work. */
  orAborted<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#giveUp = reject;
      if (this.aborted) reject(this.reason);
      work.then(resolve, reject);
    });
  }

  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    this.#controller?.abort(reason);
    this.#giveUp?.(reason);
  }

  /** The deadline no longer matters. */
  end(): void {
    clearTimeout(this.#timer);
  }
}

function expire(context: UnaryContext): void {
  context.abort(new ConnectError("the operation timed out", Code.DeadlineExceeded));
}

function headersFrom(headers: IncomingHttpHeaders): Headers {
  const result = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(":") || value === undefined) continue;
    for (const each of [value].flat()) result.append(name, each);
  }
  return result;
}
