/** How requests of the Open Inference Protocol come over HTTP: JSON, tensors in binary behind it, all of it perhaps compressed. */
import { promisify } from "node:util";
import { gunzip, inflate } from "node:zlib";
import { AppError } from "../../../lib/errors.ts";
import type { HttpRequest } from "../../../lib/rpc/port.ts";

/** Largest request body, as it comes and decompressed: as much as a message over gRPC. */
const maxBodyBytes = 8 * 1024 * 1024;

/** Length of the JSON that goes before binary tensors, in a request as in an answer. */
export const jsonLengthHeader = "inference-header-content-length";

/** What Triton's clients can send, under the names of RFC 9110, which has deflate in zlib's format. */
const decompressors: ReadonlyMap<string, (body: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>> =
  new Map([
    ["gzip", promisify(gunzip)],
    ["x-gzip", promisify(gunzip)],
    ["deflate", promisify(inflate)],
  ]);

/** A request's body, decompressed. */
export interface Body {
  readonly json: Buffer;
  readonly binary: Buffer;
}

/** INVALID_REQUEST for a body that cannot be read, with the status of HTTP that says why, if there is one, as its detail `httpStatus`. */
export async function readBody(request: HttpRequest): Promise<Body> {
  const encoding = (request.headers["content-encoding"] ?? "identity").trim().toLowerCase();
  if (encoding !== "identity" && !decompressors.has(encoding)) {
    const text = `content-encoding ${encoding} is not taken; send gzip, deflate, or what is not compressed`;
    throw new AppError("INVALID_REQUEST", text, { details: { httpStatus: "415" } });
  }
  const sent = await readBytes(request);
  // Behind the limit of what is sent, so that what waits for its turn is bounded too.
  const body = encoding === "identity" ? sent : await decompressed(sent, encoding);
  const header = request.headers[jsonLengthHeader];
  if (header === undefined) return { json: body, binary: body.subarray(body.length) };
  const jsonLength = Number(header);
  if (Number.isInteger(jsonLength) && jsonLength >= 0 && jsonLength <= body.length) {
    return { json: body.subarray(0, jsonLength), binary: body.subarray(jsonLength) };
  }
  throw new AppError("INVALID_REQUEST", `${jsonLengthHeader} is ${header}, the request has ${body.length} bytes`);
}

async function readBytes(request: HttpRequest): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  // A request that is left may not be destroyed, for its socket is needed for the answer.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    length += (chunk as Buffer).length;
    if (length > maxBodyBytes) throw tooLarge();
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}

/** Stops at the limit, however much there is in it. */
async function decompressed(body: Buffer, encoding: string): Promise<Buffer> {
  try {
    return (await decompressors.get(encoding)?.(body, { maxOutputLength: maxBodyBytes })) ?? body;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "ERR_BUFFER_TOO_LARGE") throw tooLarge({ cause });
    throw new AppError("INVALID_REQUEST", `the request is not what ${encoding} makes: ${message}`, { cause });
  }
}

function tooLarge(options: { cause?: unknown } = {}): AppError {
  const text = `the request has more than ${maxBodyBytes} bytes, decompressed if need be; send fewer images at a time`;
  return new AppError("INVALID_REQUEST", text, { ...options, details: { httpStatus: "413" } });
}
