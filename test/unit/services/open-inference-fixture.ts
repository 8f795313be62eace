/** Requests of the Open Inference Protocol over both wires, for its tests. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createMillraceClient, type MillraceClient } from "../../../client/client.ts";
import type { ModelInferRequestSchema } from "../../../gen/inference/open_inference_pb.ts";
import type { OpenInferenceServer } from "../../helpers/open-inference-server.ts";

export type InferInit = MessageInitShape<typeof ModelInferRequestSchema>;

export const shape = [2, 3, 16, 16];
export const pixels = Uint8Array.from({ length: 2 * 3 * 16 * 16 }, (_, index) => (index * 37) % 256);
export const floats = Float32Array.from(pixels);
export const rawFloats = new Uint8Array(floats.buffer);

type GrpcClient = MillraceClient["openInference"];

export function grpcClient(t: TestContext, { url }: OpenInferenceServer): GrpcClient {
  const { openInference, close } = createMillraceClient({ baseUrl: url, retries: 0 });
  t.after(close);
  return openInference;
}

const wireShape = (lengths: readonly number[]): bigint[] => lengths.map(BigInt);
export const input = (name: string, datatype: string, lengths: readonly number[], contents?: object) => ({
  name,
  datatype,
  shape: wireShape(lengths),
  ...(contents && { contents }),
});

/** Probabilities over gRPC, from the raw form that all answers have. */
export async function inferOverGrpc(client: GrpcClient, request: InferInit): Promise<number[]> {
  const { outputs, rawOutputContents } = await client.modelInfer({ modelName: "test", ...request });
  const index = outputs.findIndex(({ name }) => name === "probabilities");
  return [...new Float32Array(Uint8Array.from(rawOutputContents[index] ?? []).buffer)];
}

export interface RestReply {
  readonly status: number;
  readonly body: { error?: string; outputs?: { name: string; data: unknown[] }[]; [key: string]: unknown };
}

export async function post({ url }: OpenInferenceServer, body: string | Uint8Array, headers = {}): Promise<RestReply> {
  const response = await fetch(`${url}/v2/models/test/infer`, { method: "POST", body, headers });
  return { status: response.status, body: (await response.json()) as RestReply["body"] };
}

export async function inferOverRest(server: OpenInferenceServer, inputs: readonly object[]): Promise<number[]> {
  const { status, body } = await post(server, JSON.stringify({ inputs }));
  assert.equal(status, 200, body.error);
  return body.outputs?.find(({ name }) => name === "probabilities")?.data as number[];
}
