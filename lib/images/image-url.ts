/**
 * Fetching an image from an address that a stranger names. The server must not become a way into the network it stands in, so: http and
 * https only, no user names, hosts by a list, and public addresses only. A name is resolved once and the connection goes to that very
 * address, so that no second answer of a name server can lead elsewhere; every redirection goes through the same checks.
 */
import type { LookupAddress } from "node:dns";
import { lookup } from "node:dns/promises";
import { type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { onAbort, orAborted } from "../abort.ts";
import { AppError } from "../errors.ts";
import { isPublicAddress } from "./public-address.ts";

export interface ImageUrlOptions {
  /** Hosts that may be asked: a name, "*.example.org" for all names below one, "*" for any. */
  readonly hosts: readonly string[];
  /** Default 8 MiB. */
  readonly maxBytes?: number;
  /** For all of it, redirections included. Default 5,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Which addresses may be connected to. Default: public ones. Tests have servers on loopback. */
  readonly isAllowed?: (address: string) => boolean;
  /** Default: the system's. */
  readonly resolve?: (host: string) => Promise<readonly LookupAddress[]>;
}

/** Images that are fetched at the same time. Hosts that answer slowly hold no more memory and sockets than these. */
const mostFetches = 64;

/** Gives the bytes behind a URL, until the signal aborts. */
export type ImageFetcher = (url: string, signal: AbortSignal) => Promise<Uint8Array>;

/**
 * Fetches images from these hosts; from none, where there are none. QUEUE_FULL while as many are fetched as may be. `network` is for tests, as in
 * {@link ImageUrlOptions}.
 */
export function createImageFetcher(
  hosts: readonly string[],
  network: Pick<ImageUrlOptions, "isAllowed" | "resolve"> = {},
): ImageFetcher {
  let fetches = 0;
  return async (url, signal) => {
    if (fetches >= mostFetches) {
      throw new AppError(
        "QUEUE_FULL",
        `${mostFetches} images are being fetched already; send this request again later`,
      );
    }
    if (hosts.length > 0) {
      fetches++;
      return fetchImage(url, { ...network, hosts, signal }).finally(() => fetches--);
    }
    const advice =
      "send the image itself, or have MILLRACE_PREDICTION_IMAGE_URL_HOSTS set to the hosts that may be asked";
    throw new AppError("IMAGE_URL_REFUSED", `this service fetches no images; ${advice}`, {
      details: { field: "image_url" },
    });
  };
}

const mostRedirections = 3;
const resolveBySystem = (host: string): Promise<LookupAddress[]> => lookup(host, { all: true });

/**
 * The bytes behind a URL, which may or may not be an image. Throws IMAGE_URL_REFUSED for what may not be fetched or is too large,
 * IMAGE_NOT_FETCHED if nothing usable comes, which is not the service's fault: clients shall not turn away from it. Neither says what an address answered beyond its status.
 */
export async function fetchImage(url: string, options: ImageUrlOptions): Promise<Uint8Array> {
  const { timeoutMs = 5_000, signal } = options;
  const ending = new AbortController();
  const late = () => ending.abort(failed(url, `nothing came within ${timeoutMs} ms`));
  const timer = setTimeout(late, timeoutMs);
  const stop = signal === undefined ? () => {} : onAbort(signal, () => ending.abort(signal.reason));
  try {
    return await followed(url, options, ending.signal);
  } catch (thrown) {
    // What is torn down by the end of time throws something of its own.
    throw ending.signal.aborted ? ending.signal.reason : thrown;
  } finally {
    clearTimeout(timer);
    stop();
  }
}

async function followed(start: string, options: ImageUrlOptions, signal: AbortSignal): Promise<Uint8Array> {
  let url = checkedUrl(start, options);
  for (let redirections = 0; redirections <= mostRedirections; redirections++) {
    const response = await get(url, await orAborted(addressesOf(url, options), signal), signal);
    const { statusCode = 0, headers } = response;
    if (statusCode >= 300 && statusCode < 400 && headers.location !== undefined) {
      response.destroy();
      if (!URL.canParse(headers.location, url.href)) throw failed(url.href, "it was redirected to what is no URL");
      url = checkedUrl(new URL(headers.location, url).href, options);
      continue;
    }
    if (statusCode === 200) return await body(url, response, options);
    response.destroy();
    throw failed(url.href, `it was answered with status ${statusCode}`);
  }
  throw failed(start, `it was redirected more than ${mostRedirections} times`);
}

function checkedUrl(text: string, { hosts }: ImageUrlOptions): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined) throw refused(text, "it is no URL");
  if (url.protocol !== "http:" && url.protocol !== "https:") throw refused(text, "only http and https are fetched");
  if (url.username !== "" || url.password !== "") throw refused(text, "it holds a user name or a password");
  const host = hostOf(url);
  const isListed = hosts.some((listed) =>
    listed.startsWith("*.") ? host.endsWith(listed.slice(1)) : listed === "*" || listed === host,
  );
  if (!isListed) throw refused(text, `host ${host} is not among those that may be asked`);
  return url;
}

/** Without the brackets of IPv6. */
const hostOf = ({ hostname }: URL): string => hostname.replace(/^\[(.*)\]$/, "$1");

/** Where to connect to; every address of a name must be allowed, since any of them may be taken. */
async function addressesOf(url: URL, options: ImageUrlOptions): Promise<readonly LookupAddress[]> {
  const { isAllowed = isPublicAddress, resolve = resolveBySystem } = options;
  const host = hostOf(url);
  const family = isIP(host);
  const addresses = family === 0 ? await resolve(host).catch(() => []) : [{ address: host, family }];
  if (addresses.length === 0) throw failed(url.href, `host ${host} has no address`);
  // Which address it is would tell a stranger about this network.
  if (!addresses.every(({ address }) => isAllowed(address)))
    throw refused(url.href, "its host is not on the public internet");
  return addresses;
}

function get(url: URL, addresses: readonly LookupAddress[], signal: AbortSignal): Promise<IncomingMessage> {
  /** Answers with what was looked up and checked before, whatever the name resolves to by now. */
  const pinned: LookupFunction = (_host, { all }, done) => {
    const [first = { address: "", family: 0 }] = addresses;
    if (all) done(null, [...addresses]);
    else done(null, first.address, first.family);
  };
  const request = url.protocol === "https:" ? requestHttps : requestHttp;
  return new Promise((resolve, reject) => {
    // No agent: a connection that is kept could be one that another name has opened.
    const options = { agent: false, lookup: pinned, signal, headers: { accept: "image/*" } } as const;
    const outgoing = request(url, options, resolve);
    outgoing.on("error", (cause) => reject(failed(url.href, "its host could not be reached", cause)));
    outgoing.end();
  });
}

const defaultMaxBytes = 8 * 1024 * 1024;

async function body(url: URL, response: IncomingMessage, { maxBytes = defaultMaxBytes }: ImageUrlOptions) {
  const type = response.headers["content-type"] ?? "";
  const encoding = response.headers["content-encoding"] ?? "identity";
  try {
    if (!/^(image\/|application\/octet-stream|$)/i.test(type)) throw refused(url.href, `it is ${type}, and no image`);
    if (encoding !== "identity") throw refused(url.href, `it comes compressed (${encoding})`);
    const announced = Number(response.headers["content-length"] ?? 0);
    const tooLarge = () => refused(url.href, `it has more than ${maxBytes} bytes`);
    if (announced > maxBytes) throw tooLarge();
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxBytes) throw tooLarge();
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  } catch (cause) {
    if (cause instanceof AppError) throw cause;
    throw failed(url.href, "it broke off", cause);
  } finally {
    response.destroy();
  }
}

function refused(url: string, reason: string): AppError {
  return new AppError("IMAGE_URL_REFUSED", `${shown(url)} is not fetched: ${reason}`, {
    details: { field: "image_url" },
  });
}

function failed(url: string, reason: string, cause?: unknown): AppError {
  return new AppError("IMAGE_NOT_FETCHED", `${shown(url)} could not be fetched: ${reason}`, {
    details: { field: "image_url" },
    cause,
  });
}

/** What may stand in an error, which ends in logs and traces: no credentials, no signed query, not too long. */
function shown(text: string): string {
  if (!URL.canParse(text)) return "the image URL";
  const { protocol, host, pathname } = new URL(text);
  const url = `${protocol}//${host}${pathname}`;
  return url.length > 200 ? `${url.slice(0, 200)}...` : url;
}
