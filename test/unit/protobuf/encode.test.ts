/** Against toBinary of @bufbuild/protobuf, byte by byte, with messages of all kinds. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type DescField, type DescMessage, fromBinary, ScalarType, toBinary } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { file_google_rpc_status } from "../../../gen/google/rpc/status_pb.ts";
import { file_inference_open_inference } from "../../../gen/inference/open_inference_pb.ts";
import { file_millrace_v1_events } from "../../../gen/millrace/v1/events_pb.ts";
import { file_millrace_v1_pipeline } from "../../../gen/millrace/v1/pipeline_pb.ts";
import { file_millrace_v1_prediction, PredictResponseSchema } from "../../../gen/millrace/v1/prediction_pb.ts";
import { file_millrace_v1_training } from "../../../gen/millrace/v1/training_pb.ts";
import { file_onnx_onnx } from "../../../gen/onnx/onnx_pb.ts";
import { type Random, randomFor } from "../../../lib/images/random.ts";
import { encode } from "../../../lib/protobuf/encode.ts";

const files = [
  file_google_rpc_status,
  file_inference_open_inference,
  file_millrace_v1_events,
  file_millrace_v1_pipeline,
  file_millrace_v1_prediction,
  file_millrace_v1_training,
  file_onnx_onnx,
];
const messageTypes = files.flatMap(({ messages }) => messages);

const texts = ["", "a", "Zürich, 東京 🚀", "x".repeat(300), "\u0000\n"];
const small = [0, 1, 127, 128, 300, 2 ** 31 - 1];
const large = [0n, 1n, 127n, 128n, 2n ** 32n, 2n ** 53n, 2n ** 62n];

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.integer(values.length)] as T;
}

function scalar(random: Random, type: ScalarType): unknown {
  const negative = random.chance(0.3);
  switch (type) {
    case ScalarType.STRING:
      return pick(random, texts);
    case ScalarType.BYTES:
      return Uint8Array.from({ length: pick(random, [0, 1, 200, 40_000]) }, () => random.integer(256));
    case ScalarType.BOOL:
      return random.chance(0.5);
    case ScalarType.DOUBLE:
      return pick(random, [0, -0, 0.1, -1e300, Number.NaN, Number.POSITIVE_INFINITY]);
    case ScalarType.FLOAT:
      return pick(random, [0, 0.5, -2, Number.NaN, Number.NEGATIVE_INFINITY]);
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return pick(random, [...small, 2 ** 32 - 1]);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return pick(random, [...large, 2n ** 64n - 1n]);
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return negative ? -pick(random, large) : pick(random, large);
    default:
      return negative ? -pick(random, small) : pick(random, small);
  }
}

function single(random: Random, field: DescField, depth: number): unknown {
  if (field.message) return fill(random, field.message, depth + 1);
  if (field.enum) return pick(random, field.enum.values).number;
  return scalar(random, field.scalar as ScalarType);
}

function fill(random: Random, desc: DescMessage, depth: number): ReflectMessage {
  const message = reflect(desc, create(desc));
  for (const field of desc.fields) {
    if (depth > 3 || random.chance(0.3)) continue;
    const count = pick(random, [0, 1, 2, 5]);
    if (field.fieldKind === "list") {
      for (let n = 0; n < count; n++) message.get(field).add(single(random, field, depth));
    } else if (field.fieldKind === "map") {
      for (let n = 0; n < count; n++) message.get(field).set(pick(random, texts), single(random, field, depth));
    } else message.set(field, single(random, field, depth) as never);
  }
  return message;
}

test("every message that there is has the bytes that toBinary gives it", () => {
  for (const desc of messageTypes) {
    for (let seed = 0; seed < 40; seed++) {
      const { message } = fill(randomFor(desc.typeName, seed), desc, 0);
      const expected = Buffer.from(toBinary(desc, message));
      assert.ok(encode(desc, message).equals(expected), `${desc.typeName}, seed ${seed}`);
    }
  }
});

test("unknown fields go out as they came in", () => {
  const bytes = Uint8Array.of(0xf8, 0xff, 0x3, 1, 0xfa, 0xff, 0x3, 2, 7, 8);
  const message = fromBinary(PredictResponseSchema, bytes);
  assert.deepEqual(encode(PredictResponseSchema, message), Buffer.from(bytes));
});

test("the caller's room is before the bytes", () => {
  const message = create(PredictResponseSchema, { predictionId: "p" });
  const bytes = encode(PredictResponseSchema, message, 5);
  assert.deepEqual([...bytes.subarray(0, 5)], [0, 0, 0, 0, 0]);
  assert.deepEqual(bytes.subarray(5), Buffer.from(toBinary(PredictResponseSchema, message)));
});

test("values that a field cannot have are refused", () => {
  const wrong: object[] = [{ classIndex: -1 }, { classIndex: 1.5 }, { classIndex: 2 ** 32 }, { probability: "0.5" }];
  for (const fields of wrong) {
    const message = create(PredictResponseSchema, { predictions: [{ label: "cat" }] });
    Object.assign(message.predictions[0] as object, fields);
    assert.throws(() => encode(PredictResponseSchema, message), /is no value for its field/, JSON.stringify(fields));
  }
});
