import { setTimeout as delay } from "node:timers/promises";
import { errors, type NatsConnection } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";

export interface ConnectionOptions {
  /**
   * Server, such as "nats://127.0.0.1:4222", or several separated by commas; with "user:password@" or "token@" where needed, the same for
   * all. One that begins with "tls://" makes all of them speak TLS.
   */
  readonly url: string;
  /** Name of this service, shown by the server's monitoring. */
  readonly service: string;
  readonly logger: Logger;
}

/** A connection that is made again, without end, whenever it is lost. */
export interface Connection {
  readonly nc: NatsConnection;
  /** Whether there is a connection at this moment. */
  connected(): boolean;
  /** Calls back after each reconnection: whatever was under way before it is lost. Returns a function that ends this. */
  onReconnect(listener: () => void): () => void;
  /** Sends what is waiting and closes; takes 2 s at most, whatever the server does. */
  close(): Promise<void>;
}

/** Pause between two attempts to reconnect, and a random part on top, so that services do not come back in step. */
const reconnectPauseMs = 250;
/** A server that is silent for three of these is given up, well before a publication is. */
const pingIntervalMs = 10_000;
const closeTimeoutMs = 2_000;

/** Connects. BROKER_UNAVAILABLE if no server answers now, CONFIGURATION_INVALID if it refuses the credentials or speaks no TLS. */
export async function openConnection(options: ConnectionOptions): Promise<Connection> {
  const nc = await connectTo(options);
  const listeners = new Set<() => void>();
  const state = { connected: true };
  void watch(nc, options.logger, state, listeners);
  return {
    nc,
    connected: () => state.connected && !nc.isClosed(),
    onReconnect: (listener) => {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: () => close(nc, state.connected),
  };
}

async function connectTo({ url, service }: ConnectionOptions): Promise<NatsConnection> {
  const { servers, ...access } = serversFrom(url);
  try {
    return await connect({
      servers,
      ...access,
      name: `millrace-${service}`,
      maxReconnectAttempts: -1,
      // A server that comes back before its users are known refuses for a moment what it will take again.
      ignoreAuthErrorAbort: true,
      reconnectTimeWait: reconnectPauseMs,
      reconnectJitter: reconnectPauseMs,
      pingInterval: pingIntervalMs,
      // Capturing a stack for each request halves the rate of windowed publishing.
      noAsyncTraces: true,
    });
  } catch (cause) {
    throw connectionErrorFrom(cause, servers.join(", "));
  }
}

function connectionErrorFrom(cause: unknown, address: string): AppError {
  const options = { cause, details: { url: address } };
  const reason = cause instanceof Error ? cause.message : String(cause);
  if (cause instanceof errors.AuthorizationError) {
    const advice = "write them into its address, as in nats://user:password@host:4222";
    const message = `the NATS server at ${address} refuses the credentials; ${advice}`;
    return new AppError("CONFIGURATION_INVALID", message, options);
  }
  // The client has no class for this one.
  if (reason.includes("does not support 'tls'")) {
    const message = `the NATS server at ${address} speaks no TLS; set that up there, or write nats:// where the way to it is safe`;
    return new AppError("CONFIGURATION_INVALID", message, options);
  }
  const advice = "start one with JetStream (nats-server -js) or set MILLRACE_NATS_URL";
  return new AppError("BROKER_UNAVAILABLE", `no NATS server answers at ${address} (${reason}); ${advice}`, options);
}

/** The client takes credentials and TLS beside the addresses, not in them; in messages credentials have no place. */
function serversFrom(url: string) {
  const addresses = url.split(",").map((address) => partsOf(address.trim()));
  const servers = addresses.map(({ server }) => server);
  // Without this the client, which leaves out the scheme, would tell its credentials to a server that speaks no TLS.
  const tls = servers.some((server) => server.startsWith("tls://")) ? { tls: {} } : {};
  return { servers, ...credentialsFrom(loginOf(addresses)), ...tls };
}

/** The client has one login for all servers, also for those that it learns of later. */
function loginOf(addresses: readonly Address[]): string | undefined {
  const [login, ...others] = new Set(addresses.flatMap((address) => address.login ?? []));
  if (others.length === 0) return login;
  const message = "the NATS addresses hold different credentials; write the same into each, or into one of them alone";
  throw new AppError("CONFIGURATION_INVALID", message);
}

function credentialsFrom(login: string | undefined) {
  if (login === undefined) return {};
  const colon = login.indexOf(":");
  if (colon < 0) return { token: unescaped(login) };
  return { user: unescaped(login.slice(0, colon)), pass: unescaped(login.slice(colon + 1)) };
}

interface Address {
  readonly server: string;
  readonly login?: string;
}

/** A password may hold "@" and "/" as they are: what follows the last "@" is the server. */
function partsOf(address: string): Address {
  const scheme = /^\w+:\/\//.exec(address)?.[0] ?? "";
  const rest = address.slice(scheme.length);
  const at = rest.lastIndexOf("@");
  return at < 0 ? { server: address } : { server: scheme + rest.slice(at + 1), login: rest.slice(0, at) };
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    const message = "the credentials in the NATS address hold a % that begins no escape; write % as %25";
    throw new AppError("CONFIGURATION_INVALID", message, { cause });
  }
}

async function watch(
  nc: NatsConnection,
  logger: Logger,
  state: { connected: boolean },
  listeners: ReadonlySet<() => void>,
): Promise<void> {
  for await (const status of nc.status()) {
    if (status.type === "error") {
      logger.warn({ event: "broker.error", error: status.error }, "the NATS server reports an error");
    } else if (status.type === "disconnect") {
      state.connected = false;
      logger.warn({ event: "broker.disconnected" }, "the connection to NATS is lost; reconnecting");
    } else if (status.type === "reconnect") {
      state.connected = true;
      logger.info({ event: "broker.reconnected" }, "the connection to NATS is back");
      for (const listener of [...listeners]) listener();
    }
  }
  state.connected = false;
  const reason = await nc.closed();
  if (reason instanceof Error) {
    logger.error(
      { event: "broker.closed", error: reason },
      "the connection to NATS is closed for good; restart the service",
    );
  }
}

async function close(nc: NatsConnection, connected: boolean): Promise<void> {
  if (connected && !nc.isClosed()) {
    const given = new AbortController();
    // Draining waits for the server's answer, which never comes from one that hangs.
    const limit = delay(closeTimeoutMs, undefined, { signal: given.signal }).catch(() => undefined);
    await Promise.race([nc.drain().catch(() => undefined), limit]);
    given.abort();
  }
  await nc.close();
}
