/**
 * Tools that know nothing of our contracts list, describe and call every method of every service, by reflection, and have images
 * classified. `buf curl` is among the development dependencies; MILLRACE_TEST_GRPCURL is the path of a grpcurl:
 * `go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import type { DescMethod } from "@bufbuild/protobuf";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import sharp from "sharp";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";
import { errorTable } from "../../lib/errors.ts";
import { declaredServices } from "../helpers/contract.ts";
import { type Platform, smallRun, startPlatform } from "../helpers/platform.ts";
import { createStack } from "../helpers/stack.ts";

const root = join(import.meta.dirname, "../..");
const buf = join(root, "node_modules/@bufbuild/buf/bin/buf");
const grpcurl = process.env.MILLRACE_TEST_GRPCURL;
const skipGrpcurl = grpcurl === undefined && "MILLRACE_TEST_GRPCURL names no grpcurl";

/** Long enough for an answer; a stream that goes on is left after it. */
const callSeconds = 5;

/** What a tool printed about a call. */
interface Outcome {
  /** The messages that came, in JSON. */
  readonly answers: string;
  /** The gRPC status that was not OK, in JSON. */
  readonly failure: string;
}

interface Failure {
  readonly code: number;
  readonly reason: string;
}

const stack = createStack();
let platform: Platform;
/** The methods that can be called with one message, by their full name. */
const methods = new Map<string, DescMethod>();
before(async () => {
  for (const service of (await declaredServices()).values()) {
    for (const method of service.methods) methods.set(`${service.typeName}/${method.name}`, method);
  }
  platform = await startPlatform(stack);
  await platform.run({ spec: smallRun });
  await platform.answersWith(1);
});
after(() => stack.dispose());

const addresses = () => Object.values(platform.services.urls).map((url) => new URL(url).host);
const takesOneMessage = (name: string) => /^(unary|server_streaming)$/.test(methods.get(name)?.methodKind ?? "");

/** Runs a program to its end, however that is. */
async function output(program: string, args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  const options = { cwd: root, timeout: 60_000 };
  return promisify(execFile)(program, args, options).catch((error: { stdout?: string; stderr?: string }) => {
    // A call that fails ends the program with another status than 0; one that did not start has printed nothing.
    if (error.stderr === undefined) throw error;
    return { stdout: error.stdout ?? "", stderr: error.stderr };
  });
}

/** Calls every method once, with an empty request, and checks what came of it. `listed` has the methods that each server says it has. */
async function callAll(
  listed: ReadonlyMap<string, readonly string[]>,
  call: (address: string, name: string) => Promise<Outcome>,
  failureFrom: (json: string) => Failure,
): Promise<void> {
  const addressOf = new Map([...listed].flatMap(([address, names]) => names.map((name) => [name, address] as const)));
  assert.deepEqual([...addressOf.keys()].sort(), [...methods.keys()].sort());
  await Promise.all(
    [...listed.keys()].map(async (address) => {
      for (const [name] of [...addressOf].filter(([name, owner]) => owner === address && takesOneMessage(name))) {
        const { answers, failure } = await call(address, name);
        messagesOf(answers);
        if (failure === "") assert.notEqual(answers, "", `${name} printed nothing`);
        else assertFailure(name, { answers, failure }, failureFrom);
      }
    }),
  );
}

/** What a tool printed: several messages come one after another. */
function messagesOf(answers: string): unknown[] {
  return JSON.parse(`[${answers.replaceAll(/^}\s*{/gm, "},{")}]`);
}

/** A failed call has an error of ours with its details, unless it is a stream that went on after a first message. */
function assertFailure(name: string, { answers, failure }: Outcome, failureFrom: (json: string) => Failure): void {
  const { code, reason } = failureFrom(failure);
  if (code === Code.DeadlineExceeded && methods.get(name)?.methodKind === "server_streaming") {
    assert.notEqual(answers, "", `${name} sent nothing`);
    return;
  }
  assert.ok(reason in errorTable, `${name}: ${failure}`);
  assert.notEqual(reason, "INTERNAL", `${name}: ${failure}`);
}

const image = await sharp({ create: { width: 40, height: 30, channels: 3, background: "#c86432" } })
  .png()
  .toBuffer();
const base64 = image.toString("base64");

interface Answer {
  readonly predictions?: readonly { readonly label: string }[];
  readonly response?: Answer;
  readonly rawOutputContents?: readonly string[];
}

/** Requests of each kind that have images classified, by method. */
const classifications: Readonly<Record<string, readonly object[]>> = {
  "millrace.v1.PredictionService/Predict": [{ image: base64, topK: 1 }],
  "millrace.v1.PredictionService/PredictStream": [1, 2].map((topK) => ({ request: { image: base64, topK } })),
  "inference.GRPCInferenceService/ModelInfer": [
    {
      modelName: "default",
      inputs: [{ name: "image", datatype: "BYTES", shape: [1], contents: { bytesContents: [base64] } }],
      outputs: [{ name: "label" }],
    },
  ],
};

/** The name of the most probable class. A tensor of text has the length of each element in four bytes before it. */
function labelOf({ predictions, response, rawOutputContents }: Answer): string | undefined {
  if (response !== undefined) return labelOf(response);
  if (predictions !== undefined) return predictions[0]?.label;
  return Buffer.from(rawOutputContents?.[0] ?? "", "base64").toString("utf8", 4);
}

/** Has images classified by every method that does, which must agree. */
async function classifyAll(call: (address: string, name: string, requests: string) => Promise<Outcome>): Promise<void> {
  const { host } = new URL(platform.services.urls.prediction);
  const labels: (string | undefined)[] = [];
  for (const [name, requests] of Object.entries(classifications)) {
    const { answers, failure } = await call(host, name, requests.map((request) => JSON.stringify(request)).join("\n"));
    assert.equal(failure, "", name);
    const messages = messagesOf(answers) as Answer[];
    assert.equal(messages.length, requests.length, name);
    labels.push(...messages.map(labelOf));
  }
  assert.match(labels[0] ?? "", /^\w+$/);
  assert.deepEqual([...new Set(labels)], [labels[0]]);
}

for (const protocol of ["grpc", "grpcweb", "connect"]) {
  const curl = (...args: string[]) =>
    output(process.execPath, [buf, "curl", "--http2-prior-knowledge", "--protocol", protocol, ...args]);

  test(`buf curl has images classified over ${protocol}`, () =>
    classifyAll(async (address, name, requests) => {
      const { stdout, stderr } = await curl("--data", requests, `http://${address}/${name}`);
      return { answers: stdout.trim(), failure: stderr.trim() };
    }));

  test(`buf curl lists, describes and calls every method over ${protocol}`, async () => {
    const listed = new Map<string, readonly string[]>();
    for (const address of addresses()) {
      const { stdout } = await curl("--list-methods", `http://${address}`);
      const names = stdout.trim().split("\n");
      await describeAll(names, async (requests) => {
        const url = `http://${address}/grpc.reflection.v1.ServerReflection/ServerReflectionInfo`;
        return (await curl("--schema=.", "--data", requests, url)).stdout;
      });
      listed.set(address, names);
    }
    const call = async (address: string, name: string) => {
      const { stdout, stderr } = await curl(`--timeout=${callSeconds}s`, "--data={}", `http://${address}/${name}`);
      return { answers: stdout.trim(), failure: stderr.trim() };
    };
    await callAll(listed, call, failureFromBuf);
  });
}

/**
 * Asks reflection for the file of each method, which must say of it what our contract does. buf has no command that describes, but asks this
 * itself before each call.
 */
async function describeAll(names: readonly string[], ask: (requests: string) => Promise<string>): Promise<void> {
  const requests = names.map((name) => JSON.stringify({ fileContainingSymbol: name.replace("/", ".") }));
  const answers = messagesOf(await ask(requests.join("\n"))) as {
    readonly fileDescriptorResponse?: { readonly fileDescriptorProto?: readonly string[] };
  }[];
  const described = answers
    .flatMap(({ fileDescriptorResponse }) => fileDescriptorResponse?.fileDescriptorProto ?? [])
    .map((bytes) => fromBinary(FileDescriptorProtoSchema, Buffer.from(bytes, "base64")))
    .flatMap((file) => file.service.map((service) => ({ name: `${file.package}.${service.name}`, service })))
    .flatMap(({ name, service }) => service.method.map((method) => [`${name}/${method.name}`, method] as const));
  const byName = new Map<string, unknown>(described);
  for (const name of names) assert.deepEqual(byName.get(name), methods.get(name)?.proto, name);
}

/** Over gRPC buf prints the details of google.rpc as they came, in base64. */
function failureFromBuf(json: string): Failure {
  const { code, details = [] } = parsed(json) as { code: string; details?: { type: string; value: string }[] };
  const info = details.find(({ type }) => type === "google.rpc.ErrorInfo")?.value ?? "";
  const name = code.replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return {
    code: Code[name as keyof typeof Code],
    reason: fromBinary(ErrorInfoSchema, Buffer.from(info, "base64")).reason,
  };
}

test("grpcurl has images classified, and lists, describes and calls every method", { skip: skipGrpcurl }, async () => {
  const curl = (...args: string[]) => output(grpcurl ?? "", ["-plaintext", ...args]);
  await classifyAll(async (address, name, requests) => {
    const { stdout, stderr } = await curl("-format-error", "-d", requests, address, name);
    return { answers: stdout.trim(), failure: stderr.trim() };
  });
  const listed = new Map<string, readonly string[]>();
  for (const address of addresses()) {
    const services = (await curl(address, "list")).stdout.trim().split("\n");
    const lists = await Promise.all(services.map((service) => curl(address, "list", service)));
    const names = lists.flatMap(({ stdout }) =>
      stdout
        .trim()
        .split("\n")
        .map((name) => name.replace(/\.(?=\w+$)/, "/")),
    );
    for (const name of names) {
      const { stdout } = await curl(address, "describe", name.replace("/", "."));
      assert.match(stdout, new RegExp(`rpc ${methods.get(name)?.name} \\(.+returns`, "s"), name);
    }
    listed.set(address, names);
  }
  const call = async (address: string, name: string) => {
    const { stdout, stderr } = await curl("-format-error", `-max-time=${callSeconds}`, "-d={}", address, name);
    return { answers: stdout.trim(), failure: stderr.trim() };
  };
  await callAll(listed, call, failureFromGrpcurl);
});

function failureFromGrpcurl(json: string): Failure {
  const { code, details = [] } = parsed(json) as { code: number; details?: { "@type": string; reason?: string }[] };
  return { code, reason: details.find((detail) => detail["@type"].endsWith("google.rpc.ErrorInfo"))?.reason ?? "" };
}

/** What is no JSON is a message of the tool itself, such as that it knows no such method. */
function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return assert.fail(json);
  }
}
