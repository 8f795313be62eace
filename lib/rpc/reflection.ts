import type { DescFile, DescService, MessageInitShape } from "@bufbuild/protobuf";
import { Code, type ConnectRouter, type ConnectRouterOptions } from "@connectrpc/connect";
import { file_buf_validate_validate } from "../../gen/buf/validate/validate_pb.ts";
import { file_google_rpc_error_details } from "../../gen/google/rpc/error_details_pb.ts";
import { file_google_rpc_status } from "../../gen/google/rpc/status_pb.ts";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { createDescriptorIndex, type DescriptorIndex } from "./descriptor-index.ts";

type Answer = Pick<MessageInitShape<typeof ServerReflectionResponseSchema>, "messageResponse">;

/** Not imported by the services, but needed by a client that decodes error details. */
const errorDetailFiles = [file_google_rpc_error_details, file_google_rpc_status, file_buf_validate_validate];

/**
 * Serves grpc.reflection v1 and v1alpha for the given services, with imports, so that grpcurl and `buf curl` work with
 * no proto file at hand.
 */
export function registerReflection(
  router: ConnectRouter,
  services: readonly DescService[],
  options: Partial<ConnectRouterOptions>,
): void {
  const listed = [...services, ServerReflection, ServerReflectionAlpha];
  const index = createDescriptorIndex([...listed.map((service) => service.file), ...errorDetailFiles]);
  const names = listed.map((service) => service.typeName).sort();

  async function* serverReflectionInfo(requests: AsyncIterable<ServerReflectionRequest>) {
    const sentFiles = new Set<string>();
    for await (const request of requests) {
      yield { validHost: request.host, originalRequest: request, ...answer(request, index, names, sentFiles) };
    }
  }

  router.service(ServerReflection, { serverReflectionInfo }, options);
  // The two versions have the same fields and differ in their package alone.
  router.service(ServerReflectionAlpha, { serverReflectionInfo: serverReflectionInfo as never }, options);
}

function answer(
  { messageRequest }: ServerReflectionRequest,
  index: DescriptorIndex,
  serviceNames: readonly string[],
  sentFiles: Set<string>,
): Answer {
  const file = (found: DescFile | undefined, asked: string) =>
    found === undefined ? notFound(asked) : fileResponse(index.withImports(found, sentFiles));
  switch (messageRequest.case) {
    case "listServices":
      return listResponse(serviceNames);
    case "fileByFilename":
      return file(index.fileByName(messageRequest.value), messageRequest.value);
    case "fileContainingSymbol":
      return file(index.fileOfSymbol(messageRequest.value), messageRequest.value);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = messageRequest.value;
      return file(index.fileOfExtension(containingType, extensionNumber), `${containingType} [${extensionNumber}]`);
    }
    case "allExtensionNumbersOfType": {
      const type = messageRequest.value;
      return index.fileOfSymbol(type) === undefined ? notFound(type) : extensionsResponse(type, index);
    }
    default:
      return errorResponse(Code.InvalidArgument, "message_request is not set");
  }
}

function listResponse(names: readonly string[]): Answer {
  return { messageResponse: { case: "listServicesResponse", value: { service: names.map((name) => ({ name })) } } };
}

function fileResponse(fileDescriptorProto: Uint8Array[]): Answer {
  return { messageResponse: { case: "fileDescriptorResponse", value: { fileDescriptorProto } } };
}

function extensionsResponse(baseTypeName: string, index: DescriptorIndex): Answer {
  const extensionNumber = index.extensionNumbers(baseTypeName);
  return { messageResponse: { case: "allExtensionNumbersResponse", value: { baseTypeName, extensionNumber } } };
}

function notFound(asked: string): Answer {
  return errorResponse(Code.NotFound, `${asked} is not known here`);
}

function errorResponse(errorCode: Code, errorMessage: string): Answer {
  return { messageResponse: { case: "errorResponse", value: { errorCode, errorMessage } } };
}
