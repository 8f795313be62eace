import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { ServerReflection } from "../../../gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../../gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { startServer } from "./server-fixture.ts";

const root = fileURLToPath(new URL("../../../", import.meta.url));

/** Runs `buf curl`, which knows nothing of our protos: it asks the server. */
async function bufCurl(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(
    `${root}node_modules/.bin/buf`,
    ["curl", "--http2-prior-knowledge", ...args],
    {
      cwd: root,
      timeout: 60_000,
    },
  );
  return stdout;
}

test("buf curl lists, describes and calls the methods over reflection alone", async (t) => {
  const { url } = await startServer(t);
  const methods = await bufCurl("--protocol", "grpc", "--list-methods", url);
  assert.match(methods, /^millrace\.v1\.PredictionService\/Predict$/m);
  assert.match(methods, /^grpc\.health\.v1\.Health\/Check$/m);
  for (const protocol of ["grpc", "connect", "grpcweb"]) {
    const answer = await bufCurl("--protocol", protocol, "-d", "{}", `${url}/millrace.v1.PredictionService/GetModel`);
    assert.deepEqual(JSON.parse(answer), { classes: ["cat", "dog"] });
  }
});

for (const [version, service] of Object.entries({ v1: ServerReflection, v1alpha: ServerReflectionAlpha })) {
  test(`reflection ${version} finds files by symbol and extension, with their imports`, async (t) => {
    const { url, closeLater } = await startServer(t);
    const sessionManager = new Http2SessionManager(url);
    closeLater(() => sessionManager.abort());
    const client = createClient(
      service as typeof ServerReflection,
      createGrpcTransport({ baseUrl: url, sessionManager }),
    );

    async function* requests() {
      yield {
        messageRequest: { case: "fileContainingSymbol" as const, value: "google.rpc.BadRequest.FieldViolation" },
      };
      yield { messageRequest: { case: "fileContainingSymbol" as const, value: "millrace.v1.PredictResponse.timings" } };
      yield { messageRequest: { case: "allExtensionNumbersOfType" as const, value: "google.protobuf.FieldOptions" } };
      yield { messageRequest: { case: "fileByFilename" as const, value: "no/such.proto" } };
    }
    const answers: string[][] = [];
    for await (const { messageResponse } of client.serverReflectionInfo(requests())) {
      if (messageResponse.case === "fileDescriptorResponse") {
        answers.push(
          messageResponse.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes).name),
        );
      } else if (messageResponse.case === "allExtensionNumbersResponse") {
        answers.push(messageResponse.value.extensionNumber.map(String));
      } else {
        answers.push([messageResponse.case ?? "none"]);
      }
    }
    const [details = [], prediction = [], ...others] = answers;
    assert.deepEqual(details, ["google/rpc/error_details.proto", "google/protobuf/duration.proto"]);
    assert.equal(prediction[0], "millrace/v1/prediction.proto");
    assert.ok(prediction.includes("buf/validate/validate.proto"));
    assert.ok(!prediction.includes("google/protobuf/duration.proto"), "a file is sent once a stream");
    assert.deepEqual(others, [["1159", "1160"], ["errorResponse"]]);
  });
}
