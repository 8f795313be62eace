/**
 * Unary gRPC calls without connect-node, whose handlers are pipelines of asynchronous iterables and cost several times the
 * processor time of a whole call. A unary call is one message in and one message out, and this file is only about how they are
 * framed: spans, logs, validation, deadlines and errors are those of every other call, by the same functions. What is not a
 * plain binary message (streams, JSON, compressed requests) is left to connect-node.
 */
import type { IncomingHttpHeaders } from "node:http2";
import { create, type DescMethodUnary, fromBinary, type Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import { parseTimeout, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { AppError } from "../errors.ts";
import { errorCode } from "../http2/frames.ts";
import { headerBlock } from "../http2/hpack.ts";
import type { RequestStream } from "../http2/request-stream.ts";
import type { Logger } from "../log.ts";
import { memoize } from "../memoize.ts";
import { encode } from "../protobuf/encode.ts";
import { ObservedCall } from "./observed-call.ts";
import type { StreamHandler } from "./port.ts";
import { UnaryContext } from "./unary-context.ts";
import type { MessageCheck } from "./validation.ts";

/** A unary method with its implementation. */
export interface UnaryMethod {
  readonly method: DescMethodUnary;
  readonly implementation: (request: Message, context: HandlerContext) => unknown;
}

export interface UnaryGrpcOptions {
  readonly methods: readonly UnaryMethod[];
  readonly check: MessageCheck;
  readonly logger: Logger;
  readonly maxMessageBytes: number;
  /** Deadline of a call whose client sets none. */
  readonly defaultDeadlineMs: number;
  /** What a longer deadline is cut to. */
  readonly maxDeadlineMs: number;
}

const contentType = "application/grpc+proto";

/** Takes the HTTP/2 streams that are unary gRPC calls of these methods; says which it took. */
export function createUnaryGrpc(options: UnaryGrpcOptions): StreamHandler {
  const methods = new Map<string, UnaryMethod>(
    options.methods.map((unary) => [`/${unary.method.parent.typeName}/${unary.method.name}`, unary]),
  );
  return (stream, headers) => {
    const unary = methods.get(headers[":path"] ?? "");
    if (unary === undefined || !isPlainGrpc(headers)) return false;
    serve(options, unary, { stream, headers }).catch((error: unknown) => {
      options.logger.error({ event: "rpc.unanswered", error }, `${headers[":path"]} could not be answered`);
      stream.reset(errorCode.internalError);
    });
    return true;
  };
}

function isPlainGrpc(headers: IncomingHttpHeaders): boolean {
  const type = headers["content-type"];
  const encoding = headers["grpc-encoding"] ?? "identity";
  return (
    headers[":method"] === "POST" && (type === "application/grpc" || type === contentType) && encoding === "identity"
  );
}

interface Incoming {
  readonly stream: RequestStream;
  readonly headers: IncomingHttpHeaders;
}

/** Answers one call. What goes wrong with it is in the answer, or the peer is gone. */
async function serve(options: UnaryGrpcOptions, { method, implementation }: UnaryMethod, incoming: Incoming) {
  const { stream, headers } = incoming;
  const call = new ObservedCall({ method, protocol: "grpc", headers }, options.logger);
  const timeout = parseTimeout(headers["grpc-timeout"]?.toString() ?? null, Number.POSITIVE_INFINITY);
  const timeoutMs = Math.min(timeout.timeoutMs ?? options.defaultDeadlineMs, options.maxDeadlineMs);
  const context = new UnaryContext(method, headers, timeoutMs);
  try {
    if (timeout.error !== undefined) throw timeout.error;
    const abort = () => context.abort(new AppError("CANCELLED", "the client went away"));
    const message = readMessage(stream, options.maxMessageBytes, abort);
    const work = async () => {
      const request = parse(method, await message);
      options.check(method.input, request);
      return implementation(request, context);
    };
    const answer = await call.run(() => context.orAborted(work()));
    const framed = encode(method.output, asMessage(method, answer), prefixBytes);
    framed.writeUInt32BE(framed.length - prefixBytes, 1);
    call.succeed();
    sendAnswer(stream, framed, context);
  } catch (thrown) {
    sendError(stream, call.fail(thrown, context));
  } finally {
    context.end();
  }
}

function parse({ input }: DescMethodUnary, bytes: Uint8Array): Message {
  try {
    return fromBinary(input, bytes);
  } catch (cause) {
    // The status that gRPC has for this (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
    const reason = cause instanceof Error ? cause.message : String(cause);
    const text = `the request is no ${input.typeName}: ${reason}`;
    throw new ConnectError(text, Code.Internal, undefined, undefined, cause);
  }
}

function asMessage({ output }: DescMethodUnary, answer: unknown): Message {
  return "$typeName" in (answer as object) ? (answer as Message) : create(output, answer as Record<string, unknown>);
}

/** Bytes before a message: a flag for compression, and its length (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). */
const prefixBytes = 5;

/** The one message of a unary request. Rejects with what the protocol says of none, of more, and of too long a one. */
function readMessage(stream: RequestStream, maxBytes: number, abort: () => void): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    let bytes: Buffer = Buffer.alloc(0);
    let received = 0;
    stream.receiver = {
      data(chunk) {
        const start = received;
        received += chunk.length;
        if (received > prefixBytes + maxBytes) {
          // Nothing of a message that is too long needs to be kept.
          bytes = Buffer.alloc(0);
          reject(tooLarge(`${received} bytes or more`, maxBytes));
        } else if (start === 0) {
          bytes = owned(chunk);
        } else {
          if (received > bytes.length) bytes = grown(bytes, received);
          chunk.copy(bytes, start);
        }
      },
      end() {
        try {
          resolve(unframed(bytes.subarray(0, received), maxBytes));
        } catch (error) {
          reject(error);
        }
      },
      abort,
    };
  });
}

/** A part of what was read at once, which it would keep in memory as a whole; most requests are most of it. */
function owned(chunk: Buffer): Buffer {
  return chunk.length < chunk.buffer.byteLength / 4 ? Buffer.from(chunk) : chunk;
}

/** With room for more than what is needed now, so that what comes in small pieces is not copied for each. */
function grown(bytes: Buffer, neededBytes: number): Buffer {
  const larger = Buffer.allocUnsafe(Math.max(neededBytes, 2 * bytes.length));
  bytes.copy(larger);
  return larger;
}

function unframed(bytes: Buffer, maxBytes: number): Uint8Array {
  if (bytes.length === 0) throw new ConnectError("the request has no message", Code.Unimplemented);
  if (bytes.length < prefixBytes) throw incomplete();
  if (bytes[0] !== 0)
    throw new ConnectError("the message is compressed, but the call names no compression", Code.Internal);
  const length = bytes.readUInt32BE(1);
  if (length > maxBytes) throw tooLarge(`${length} bytes`, maxBytes);
  if (bytes.length < prefixBytes + length) throw incomplete();
  if (bytes.length > prefixBytes + length)
    throw new ConnectError("the request has more than one message", Code.Unimplemented);
  return bytes.subarray(prefixBytes);
}

function tooLarge(size: string, maxBytes: number): ConnectError {
  return new ConnectError(`the message has ${size}, at most ${maxBytes} are taken`, Code.ResourceExhausted);
}

function incomplete(): ConnectError {
  return new ConnectError("the request ends before its message does", Code.InvalidArgument);
}

const answerHeaders = { ":status": "200", "content-type": contentType };
const answerTrailers = { "grpc-status": "0" };
const plainAnswerHeaders = headerBlock(Object.entries(answerHeaders));
const plainAnswerTrailers = headerBlock(Object.entries(answerTrailers));

function sendAnswer(
  stream: RequestStream,
  framed: Buffer,
  { sentHeader, sentTrailer }: Pick<UnaryContext, "sentHeader" | "sentTrailer">,
): void {
  const headers = sentHeader && mergedBlock(answerHeaders, sentHeader);
  const trailers = sentTrailer && mergedBlock(sentTrailer, answerTrailers);
  stream.answer(headers ?? plainAnswerHeaders, framed, trailers ?? plainAnswerTrailers);
}

type AnyHeaders = Headers | Readonly<Record<string, string>>;

/** The second says what both say. */
function mergedBlock(first: AnyHeaders, second: AnyHeaders): Buffer {
  const [all, more] = [first, second].map((headers) =>
    headers instanceof Headers ? Object.fromEntries(headers) : headers,
  );
  return headerBlock(Object.entries({ ...all, ...more }));
}

/** Headers only: clients take headers before an answer as the point after which a call must not be tried again. */
function sendError(stream: RequestStream, error: ConnectError): void {
  stream.answerShortly(headersOf(error));
}

/** To encode the details of an error costs as much as the rest of answering with it; a server that refuses many sends one to all. */
const headersOf = memoize((error: ConnectError): Buffer => {
  const trailers = new Headers();
  setTrailerStatus(trailers, error);
  // grpc-js reads this with decodeURI, which leaves commas, colons and others as they were escaped.
  trailers.set("grpc-message", encodeURI(error.rawMessage));
  return mergedBlock(answerHeaders, trailers);
});
