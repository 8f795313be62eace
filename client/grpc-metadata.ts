/** What grpc-js calls metadata and status, as what Connect calls headers and errors. */
import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { Metadata, type StatusObject } from "@grpc/grpc-js";
import { type Status, StatusSchema } from "../gen/google/rpc/status_pb.ts";
import type { HeadersSource } from "./call.ts";

/** Values under names of this ending are bytes, which headers hold as Base64. */
const binary = "-bin";

export function metadataFromHeaders(headers: HeadersSource | undefined): Metadata {
  const metadata = new Metadata();
  new Headers(headers).forEach((value, name) => {
    metadata.set(name, name.endsWith(binary) ? Buffer.from(value, "base64") : value);
  });
  return metadata;
}

/** Adds what has come to `headers`. */
export function headersFromMetadata(metadata: Metadata, headers: Headers): Headers {
  for (const [name, values] of Object.entries(metadata.toJSON())) {
    for (const value of values) headers.append(name, typeof value === "string" ? value : value.toString("base64"));
  }
  return headers;
}

/** Status codes have the same numbers in both. */
export function errorFromStatus(thrown: unknown): ConnectError {
  if (!isStatus(thrown)) return ConnectError.from(thrown, Code.Internal);
  const { code, details, metadata } = thrown;
  const known = code in Code ? (code as number as Code) : Code.Unknown;
  const status = statusIn(metadata);
  // grpc-js leaves some characters of the plain message escaped.
  const message = status?.message || details;
  const error = new ConnectError(message, known, headersFromMetadata(metadata, new Headers()), [], thrown);
  for (const { typeUrl, value } of status?.details ?? []) {
    error.details.push({ type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value });
  }
  return error;
}

function isStatus(thrown: unknown): thrown is StatusObject {
  return thrown instanceof Error && "code" in thrown && "details" in thrown && "metadata" in thrown;
}

function statusIn(metadata: Metadata): Status | undefined {
  const [bytes] = metadata.get("grpc-status-details-bin");
  if (!Buffer.isBuffer(bytes)) return undefined;
  try {
    return fromBinary(StatusSchema, bytes);
  } catch {
    // Details that cannot be read are as good as none: the code still says what happened.
    return undefined;
  }
}
