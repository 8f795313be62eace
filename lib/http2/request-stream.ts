/** Told what comes of a request. */
export interface Receiver {
  data(chunk: Buffer): void;
  /** All of it is there. */
  end(): void;
  /** The peer no longer wants an answer, or is gone. Nothing else is told after it. */
  abort(): void;
}

/** What a connection does for its streams. */
export interface StreamOwner {
  isOpen(stream: RequestStream): boolean;
  /** @param rest Left out where the headers are all there is. */
  answer(stream: RequestStream, headers: Buffer, rest?: AnswerRest): void;
  /** Ends a stream with one of `errorCode`. */
  reset(streamId: number, code: number): void;
}

/** What comes behind the headers of an answer. */
export interface AnswerRest {
  readonly body: Buffer;
  /** A block of headers. */
  readonly trailers: Buffer;
}

/** A request that is answered in one piece. Once it has been, or the peer has gone, answering it has no effect. */
export class RequestStream {
  readonly id: number;
  /** Has to be set when the request is taken. */
  receiver: Receiver | undefined;
  /** Bytes that have come, and of which the peer has not been told that they were read. */
  uncredited = 0;
  /** Bytes that the peer lets us send. */
  sendWindow: number;
  /** Whether all of the request has come. */
  isRead: boolean;
  /** What of the answer waits for the peer to make room for it. */
  unsent: (AnswerRest & { at: number }) | undefined;
  readonly #owner: StreamOwner;

  constructor(owner: StreamOwner, id: number, { sendWindow, isRead }: Pick<RequestStream, "sendWindow" | "isRead">) {
    this.#owner = owner;
    this.id = id;
    this.sendWindow = sendWindow;
    this.isRead = isRead;
  }

  /** Sends an answer. @param headers A block of headers, like `trailers`: see `headerBlock`. */
  answer(headers: Buffer, body: Buffer, trailers: Buffer): void {
    this.#owner.answer(this, headers, { body, trailers });
  }

  /** Sends an answer that has headers only. */
  answerShortly(headers: Buffer): void {
    this.#owner.answer(this, headers);
  }

  /** Gives up: the peer hears that there is no answer. @param code One of `errorCode`. */
  reset(code: number): void {
    if (this.#owner.isOpen(this)) this.#owner.reset(this.id, code);
  }
}
