import { type Context, type Span, trace } from "@opentelemetry/api";

/**
 * As trace.setSpan: a context with this span, and with what `parent` holds otherwise. The API's own context copies all of that into a map, and
 * consists of three closures; this one is made for each span, and a request has several.
 */
export function contextWithSpan(parent: Context, span: Span): Context {
  return SpanFrame.within(parent, span);
}

class SpanFrame implements Context {
  /** Never another frame, whose span would not be seen: contexts that lie in one another keep no chain of spans alive. */
  readonly #rest: Context;
  readonly #span: Span;

  private constructor(rest: Context, span: Span) {
    this.#rest = rest;
    this.#span = span;
  }

  static within(parent: Context, span: Span): SpanFrame {
    return new SpanFrame(parent instanceof SpanFrame ? parent.#rest : parent, span);
  }

  getValue(key: symbol): unknown {
    return key === spanKey ? this.#span : this.#rest.getValue(key);
  }

  setValue(key: symbol, value: unknown): Context {
    return this.#copy().setValue(key, value);
  }

  deleteValue(key: symbol): Context {
    return this.#copy().deleteValue(key);
  }

  #copy(): Context {
    return trace.setSpan(this.#rest, this.#span);
  }
}

/** Under which the API keeps the span. It names the key to nobody, but asks for it. */
const spanKey = keyOf(trace.getSpan);

function keyOf(get: (context: Context) => unknown): symbol | undefined {
  let key: symbol | undefined;
  const asked: Context = {
    getValue(symbol) {
      key = symbol;
      return undefined;
    },
    setValue: () => asked,
    deleteValue: () => asked,
  };
  get(asked);
  return key;
}
