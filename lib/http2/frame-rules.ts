/** What a frame has to be, whatever it says (RFC 9113, section 6). */
import { ConnectionError, errorCode, type Frame, flag, frameType } from "./frames.ts";

interface Rule {
  readonly name: string;
  /** What it is about; undefined: either. */
  readonly about?: "stream" | "connection";
  readonly bytes?: number;
}

const rules: Readonly<Record<number, Rule>> = {
  [frameType.data]: { name: "DATA", about: "stream" },
  [frameType.headers]: { name: "HEADERS", about: "stream" },
  [frameType.priority]: { name: "PRIORITY", about: "stream", bytes: 5 },
  [frameType.reset]: { name: "RST_STREAM", about: "stream", bytes: 4 },
  [frameType.settings]: { name: "SETTINGS", about: "connection" },
  [frameType.ping]: { name: "PING", about: "connection", bytes: 8 },
  [frameType.goAway]: { name: "GOAWAY", about: "connection" },
  [frameType.windowUpdate]: { name: "WINDOW_UPDATE", bytes: 4 },
  [frameType.continuation]: { name: "CONTINUATION", about: "stream" },
};

/** Bytes of a GOAWAY at least. */
const goAwayBytes = 8;
const bytesOfSetting = 6;

/** Throws a ConnectionError for a frame that no peer may send. */
export function checkFrame(received: Frame): void {
  const { type, streamId, payload } = received;
  const rule = rules[type];
  if (rule === undefined) return;
  const { name, about, bytes } = rule;
  if (about !== undefined && (streamId === 0) !== (about === "connection")) {
    throw new ConnectionError(errorCode.protocolError, `${name} is about a ${about}, not about ${streamId}`);
  }
  if (bytes === undefined ? hasLength(received) : payload.length === bytes) return;
  throw new ConnectionError(errorCode.frameSizeError, `${name} has ${payload.length} bytes`);
}

function hasLength({ type, flags, payload: { length } }: Frame): boolean {
  if (type === frameType.goAway) return length >= goAwayBytes;
  if (type !== frameType.settings) return true;
  return (flags & flag.ack) !== 0 ? length === 0 : length % bytesOfSetting === 0;
}
