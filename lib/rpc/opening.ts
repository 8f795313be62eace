import type { Socket } from "node:net";

/** What an HTTP/2 client with prior knowledge sends first (RFC 9113, section 3.4). */
const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/**
 * Reads from a new connection until it is clear whether HTTP/2 is spoken, puts the bytes back, and says so.
 * A connection that fails, ends, or stays unclear for `timeoutMs` is closed and never reported.
 */
export function readOpening(socket: Socket, timeoutMs: number, decided: (isHttp2: boolean) => void): void {
  const chunks: Buffer[] = [];
  const timer = setTimeout(giveUp, timeoutMs);
  socket.on("readable", onReadable);
  socket.on("end", giveUp);
  socket.on("error", giveUp);
  socket.once("close", release);

  function onReadable() {
    for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) chunks.push(chunk);
    const opening = Buffer.concat(chunks);
    const length = Math.min(opening.length, preface.length);
    const isHttp2 = opening.subarray(0, length).equals(preface.subarray(0, length));
    if (isHttp2 && length < preface.length) return;
    release();
    socket.unshift(opening);
    // http.Server makes half-open sockets, which an HTTP/2 session does not expect: without this line every connection
    // that its client ends stays in CLOSE_WAIT.
    if (isHttp2) socket.allowHalfOpen = false;
    decided(isHttp2);
  }

  function giveUp() {
    release();
    socket.destroy();
  }

  function release() {
    clearTimeout(timer);
    socket.off("readable", onReadable);
    socket.off("end", giveUp);
    socket.off("error", giveUp);
    socket.off("close", release);
  }
}
