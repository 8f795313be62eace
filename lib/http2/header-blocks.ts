/** Headers that take several frames, between which no others may be (RFC 9113, section 4.3). */
import { ConnectionError, errorCode, type Frame, flag, frameType, unpadded } from "./frames.ts";

/**
 * Gives each frame as it is, but for headers one frame with all of them when the last has come, and nothing until then. Throws a ConnectionError if
 * others come between, or they have more than `maxBytes`.
 */
export function createHeaderJoiner(maxBytes: number): (received: Frame) => Frame | undefined {
  let unfinished: { readonly first: Frame; readonly blocks: Buffer[] } | undefined;
  let bytes = 0;
  return (received) => {
    const { type, flags, streamId } = received;
    const isContinuation = type === frameType.continuation;
    if (isContinuation !== (unfinished !== undefined) || (isContinuation && streamId !== unfinished?.first.streamId)) {
      throw new ConnectionError(errorCode.protocolError, "the frames of a message's headers do not follow each other");
    }
    if (type !== frameType.headers && !isContinuation) return received;
    const block = isContinuation ? received.payload : unpadded(received);
    const isLast = (flags & flag.endHeaders) !== 0;
    if (unfinished === undefined) {
      if (isLast) return { ...received, payload: block };
      unfinished = { first: received, blocks: [block] };
      bytes = block.length;
      return undefined;
    }
    const { first, blocks } = unfinished;
    blocks.push(block);
    bytes += block.length;
    // Empty frames would go on for ever.
    if (bytes > maxBytes || block.length === 0) {
      throw new ConnectionError(errorCode.enhanceYourCalm, `the headers of a message may have ${maxBytes} bytes`);
    }
    if (!isLast) return undefined;
    unfinished = undefined;
    return { ...first, payload: Buffer.concat(blocks) };
  };
}
