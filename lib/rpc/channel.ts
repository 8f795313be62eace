import { isIP } from "node:net";
import { type ChannelOptions, credentials } from "@grpc/grpc-js";
import { AppError } from "../errors.ts";

/** Tries of a unary call and of a stream that has not begun, the first included; gRPC allows 5 at most. */
export interface RetrySettings {
  readonly maxAttempts: number;
}

export const defaultRetry: RetrySettings = { maxAttempts: 4 };

/** Room for a message on its way: HTTP/2's default of 64 KiB makes images wait for each other's acknowledgements. */
const windowBytes = 256 * 1024;

const maxMessageBytes = 16 * 1024 * 1024;

/** gRPC inside a private network; a mesh adds TLS where it is wanted. */
export const channelCredentials = credentials.createInsecure();

/**
 * Options of a channel: round-robin over the addresses, retries where the server was not reached or asked to be called
 * again (UNAVAILABLE), keep-alive, and a reconnection that is quick, because services start and stop beside each other.
 */
export function channelOptions(serviceName: string, retry: RetrySettings | false): ChannelOptions {
  const retryPolicy = retry !== false && {
    maxAttempts: retry.maxAttempts,
    initialBackoff: "0.1s",
    maxBackoff: "2s",
    backoffMultiplier: 2,
    retryableStatusCodes: ["UNAVAILABLE"],
  };
  return {
    "grpc.service_config": JSON.stringify({
      loadBalancingConfig: [{ round_robin: {} }],
      methodConfig: [{ name: [{ service: serviceName }], ...(retryPolicy && { retryPolicy }) }],
      retryThrottling: { maxTokens: 100, tokenRatio: 0.1 },
    }),
    "grpc.service_config_disable_resolution": 1,
    "grpc.enable_retries": retry === false ? 0 : 1,
    "grpc.enable_http_proxy": 0,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc-node.flow_control_window": windowBytes,
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
  };
}

/**
 * The gRPC target of "host:port", or of several IP addresses separated by commas.
 *
 * @throws AppError CONFIGURATION_INVALID if one of several is not an IP address: gRPC resolves one name, not a list.
 */
export function targetOf(address: string): string {
  const addresses = address.split(",").map((part) => part.trim());
  if (addresses.length === 1) return `dns:///${address.trim()}`;
  const version = isIP(hostOf(addresses[0] ?? ""));
  if (version === 0 || addresses.some((each) => isIP(hostOf(each)) !== version)) {
    throw new AppError(
      "CONFIGURATION_INVALID",
      `"${address}" must be IP addresses of one family, such as 10.0.0.1:7404,10.0.0.2:7404, or one name that resolves to them`,
    );
  }
  return `ipv${version}:${addresses.join(",")}`;
}

function hostOf(address: string): string {
  return address.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
}
