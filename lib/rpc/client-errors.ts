import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { status as GrpcStatus, type ServiceError } from "@grpc/grpc-js";
import { type ErrorInfo, ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { type Status, StatusSchema } from "../../gen/google/rpc/status_pb.ts";
import { AppError, type ErrorCode, errorTable } from "../errors.ts";
import { errorDomain } from "./server-errors.ts";

/** Codes for answers that carry none of ours, such as those of grpc-js itself. INTERNAL stands for the others. */
const codeOfStatus: Readonly<Partial<Record<GrpcStatus, ErrorCode>>> = {
  [GrpcStatus.ABORTED]: "CONFLICT",
  [GrpcStatus.CANCELLED]: "CANCELLED",
  [GrpcStatus.DEADLINE_EXCEEDED]: "DEADLINE_EXCEEDED",
  [GrpcStatus.INVALID_ARGUMENT]: "INVALID_REQUEST",
  [GrpcStatus.UNAVAILABLE]: "SERVICE_UNAVAILABLE",
};

/**
 * What a failed gRPC call means for its caller: the AppError that the server threw, where google.rpc.ErrorInfo says so,
 * with its message, details and whether to try again; otherwise the nearest code, with the gRPC status in the details.
 */
export function appErrorFromGrpc(error: ServiceError, method: string, address: string): AppError {
  const status = statusDetails(error);
  const info = status && findErrorInfo(status);
  if (status !== undefined && info !== undefined && info.reason in errorTable) {
    const retryable = status.details.some((any) => anyUnpack(any, RetryInfoSchema) !== undefined);
    return new AppError(info.reason as ErrorCode, status.message, { details: info.metadata, retryable, cause: error });
  }
  const code = codeOfStatus[error.code] ?? "INTERNAL";
  return new AppError(code, `${method} at ${address} failed: ${error.message}`, {
    details: { grpcStatus: GrpcStatus[error.code] ?? String(error.code) },
    cause: error,
    // A status that nobody here planned for says nothing about another try.
    ...(code === "INTERNAL" && { retryable: false }),
  });
}

function findErrorInfo(status: Status): ErrorInfo | undefined {
  for (const any of status.details) {
    const info = anyUnpack(any, ErrorInfoSchema);
    if (info?.domain === errorDomain) return info;
  }
  return undefined;
}

function statusDetails(error: ServiceError): Status | undefined {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return fromBinary(StatusSchema, bytes);
  } catch {
    // Details that cannot be read are as good as none: the status itself still says what happened.
    return undefined;
  }
}
