import { createServer as createHttp1Server, type Server as Http1Server } from "node:http";
import { createServer as createHttp2Server, type Http2Server } from "node:http2";
import type { AddressInfo, Server, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { createServer as createTlsServer, type Server as TlsServer } from "node:tls";
import type { connectNodeAdapter } from "@connectrpc/connect-node";
import { type ConnectionHandlers, ServerConnection } from "../http2/connection.ts";
import { readOpening } from "./opening.ts";

/** How often a closing server looks for HTTP/1.1 connections that have become idle. */
const idleSweepMs = 50;
/** Frees the sockets of peers that vanished without a word. */
const tcpKeepAliveMs = 60_000;
/** In which requests still arrive that a peer sent before it heard that it shall leave. */
const leaveMs = 1_000;

/** A request handler for both HTTP servers, as the Connect adapter defines it. */
export type HttpHandler = ReturnType<typeof connectNodeAdapter>;
export type HttpRequest = Parameters<HttpHandler>[0];
export type HttpResponse = Parameters<HttpHandler>[1];

/** Takes an HTTP/2 stream before Node makes a request of it; false leaves it. */
export type StreamHandler = ConnectionHandlers["take"];

export interface PortHandlers {
  readonly takeStream: StreamHandler;
  /** Requests over HTTP/1.1, and over HTTP/2 those that were not taken. */
  readonly answer: HttpHandler;
}

export interface PortLimits {
  /** HTTP/2 requests under way on one connection. */
  readonly maxConcurrentStreams: number;
  /** Memory of one HTTP/2 connection in megabytes that Node's HTTP/2 may use; above it, new streams are refused. */
  readonly maxSessionMemoryMb: number;
  /** Bytes that a peer may send ahead, on a stream and on a connection. Above 256 KiB two Node peers can deadlock. */
  readonly windowBytes: number;
  /** A connection that does not show within this time which HTTP it speaks is closed. */
  readonly openingTimeoutMs: number;
  /**
   * How long an idle HTTP/1.1 connection is kept for its next request. Longer than load balancers keep theirs, which is 60 s for most: one that sends a
   * request just when the connection is closed answers its client with an error of its own.
   */
  readonly keepAliveMs: number;
  /**
   * After which an HTTP/2 peer is asked to connect anew, more or less by a tenth, so that not all do at once; what is under way may end. Clients of
   * gRPC keep a connection for as long as it lasts, and would never find a process that was started after it. 0 for never.
   */
  readonly maxConnectionAgeMs: number;
}

/** What a server shows and asks for over TLS, in PEM. */
export interface TlsIdentity {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** Certificates of those who may sign clients' certificates; every client must then have one. Default: clients need none. */
  readonly clientCa?: Buffer;
}

/** One port on which HTTP/1.1 and HTTP/2 are spoken, in clear text or over TLS. */
export interface Port {
  /** Shows another identity to connections that come from now on. Only for a port over TLS. */
  setIdentity(tls: TlsIdentity): void;
  /** Starts to accept. Rejects with the system's error, such as EADDRINUSE. */
  listen(host: string, port: number): Promise<AddressInfo>;
  /**
   * Stops accepting, asks HTTP/2 peers to leave (GOAWAY) and resolves when no socket is open.
   * Requests under way may end; what is left after `graceMs` is cut.
   */
  close(graceMs: number): Promise<void>;
}

/**
 * Tells the two protocols apart by the first bytes of a connection, which are the same whether TLS is around them or not. In clear text
 * the HTTP/1 server is the one that listens; its own connection listener sees only what is not HTTP/2.
 */
export function createPort({ takeStream, answer }: PortHandlers, limits: PortLimits, tls?: TlsIdentity): Port {
  const http1 = createHttp1Server({ keepAliveTimeout: limits.keepAliveMs }, answer);
  const http2 = createHttp2Server(
    {
      maxSessionMemory: limits.maxSessionMemoryMb,
      settings: { maxConcurrentStreams: limits.maxConcurrentStreams, initialWindowSize: limits.windowBytes },
    },
    answer,
  );
  const serveHttp1 = takeListeners(http1, "connection");
  prepareSessions(http2, limits);
  const connections = new Set<ServerConnection>();
  const serveHttp2 = (socket: Socket): void => {
    const handlers = { take: takeStream, serve: (tunnel: Duplex) => http2.emit("connection", tunnel) };
    const connection = new ServerConnection(socket, handlers, limits);
    connections.add(connection);
    socket.once("close", () => connections.delete(connection));
    if (limits.maxConnectionAgeMs > 0) limitAge(socket, connection, limits.maxConnectionAgeMs);
  };
  const handshakeTimeout = limits.openingTimeoutMs;
  const secure = tls && createTlsServer({ ALPNProtocols: ["h2", "http/1.1"], handshakeTimeout, ...secureContext(tls) });
  // Over TLS nobody listens through the HTTP/1 server, but this is when it begins to watch over slow and idle connections.
  secure?.on("listening", () => http1.emit("listening"));
  const listener = secure ?? http1;
  const sockets = new Set<Socket>();
  /** Sockets that have not yet shown which HTTP they speak. */
  const undecided = new Set<Socket>();
  /** By their peers: those with which TLS is still being agreed on, of which only the TLS server knows. */
  const shaking = new Map<string, Socket>();
  secure?.on("connection", (socket: Socket) => {
    const peer = peerOf(socket);
    shaking.set(peer, socket);
    socket.once("close", () => {
      if (shaking.get(peer) === socket) shaking.delete(peer);
    });
  });

  listener.on(secure === undefined ? "connection" : "secureConnection", (socket: Socket) => {
    shaking.delete(peerOf(socket));
    sockets.add(socket);
    undecided.add(socket);
    socket.once("close", () => {
      sockets.delete(socket);
      undecided.delete(socket);
    });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, tcpKeepAliveMs);
    readOpening(socket, limits.openingTimeoutMs, (isHttp2) => {
      undecided.delete(socket);
      if (isHttp2) serveHttp2(socket);
      else serveHttp1(socket);
    });
  });

  return {
    setIdentity: (next) => secure?.setSecureContext(secureContext(next)),
    listen: (host, port) => listen(listener, host, port),
    async close(graceMs) {
      const cut = setTimeout(() => destroyAll(sockets), graceMs);
      const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
      // Says that it does not listen, which over TLS is true, and stops its watch all the same.
      if (secure !== undefined) http1.close(() => undefined);
      // A kept-alive connection becomes idle when its answer is out; Node looks for idle ones only once, at close.
      const idle = setInterval(() => http1.closeIdleConnections(), idleSweepMs);
      destroyAll(shaking.values());
      destroyAll(undecided);
      for (const connection of connections) connection.close();
      await closed;
      clearInterval(idle);
      clearTimeout(cut);
    },
  };
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function secureContext({ cert, key, clientCa }: TlsIdentity) {
  const minVersion = "TLSv1.2" as const;
  return { cert, key, minVersion, ...(clientCa && { ca: clientCa, requestCert: true, rejectUnauthorized: true }) };
}

/** What the server itself does at an event, which it then no longer does. */
function takeListeners(server: Server, event: "connection"): (socket: Socket) => void {
  const listeners = server.listeners(event);
  server.removeAllListeners(event);
  return (socket) => {
    for (const listener of listeners) listener.call(server, socket);
  };
}

function prepareSessions(server: Http2Server, { windowBytes }: PortLimits): void {
  server.on("session", (session) => session.setLocalWindowSize(windowBytes));
  server.on("sessionError", () => {
    // A peer that breaks the protocol: its connection is closed, and there is nobody to tell.
  });
}

function limitAge(socket: Socket, connection: ServerConnection, maxAgeMs: number): void {
  const ageMs = maxAgeMs * (0.9 + 0.2 * Math.random());
  let timer = setTimeout(() => {
    // First only asked to leave, for what is already on its way would be lost.
    connection.askToLeave();
    timer = setTimeout(() => connection.close(), leaveMs);
  }, ageMs);
  socket.once("close", () => clearTimeout(timer));
}

function listen(server: Http1Server | TlsServer, host: string, port: number): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve(server.address() as AddressInfo);
    });
  });
}

function destroyAll(sockets: Iterable<Socket>): void {
  for (const socket of sockets) socket.destroy();
}
