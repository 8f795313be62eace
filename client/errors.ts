import { durationMs } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.ts";

/** `google.rpc.ErrorInfo.domain` of the errors that Millrace itself makes. */
const domain = "millrace";

/**
 * The stable reason of a failed call, such as "MODEL_NOT_READY" or "QUEUE_FULL": programs decide by it, people read the
 * message. Undefined for what did not come from Millrace, such as a connection that broke.
 */
export function reasonOf(error: unknown): string | undefined {
  const infos = ConnectError.from(error).findDetails(ErrorInfoSchema);
  return infos.find((info) => info.domain === domain)?.reason;
}

/** How long the server asks to wait before another try, in milliseconds. Undefined if trying again does not help. */
export function retryDelayMsOf(error: unknown): number | undefined {
  const [info] = ConnectError.from(error).findDetails(RetryInfoSchema);
  return info?.retryDelay && durationMs(info.retryDelay);
}
