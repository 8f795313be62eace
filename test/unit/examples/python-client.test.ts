/**
 * The Python client of examples/python: generated anew, then run against a real prediction service. MILLRACE_TEST_GRPC_PYTHON is the
 * path of a Python with grpcio-tools, best in a virtual environment: `pip install grpcio-tools`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, readFile, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import sharp from "sharp";
import { startPredictionService } from "../../helpers/prediction-server.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

const root = join(import.meta.dirname, "../../..");
const python = process.env.MILLRACE_TEST_GRPC_PYTHON ?? "";
const skip = python === "" && "MILLRACE_TEST_GRPC_PYTHON names no Python with grpcio-tools";
const run = promisify(execFile);

test("a Python client is generated from the contracts and classifies", { skip }, async (t) => {
  const folder = await tempFolder(t);
  for (const path of ["proto", "buf.yaml", "examples/python"])
    await cp(join(root, path), join(folder, path), { recursive: true });
  const cwd = join(folder, "examples/python");
  const env = { ...process.env, PATH: `${dirname(python)}${delimiter}${process.env.PATH}` };
  const buf = join(root, "node_modules/@bufbuild/buf/bin/buf");
  await run(process.execPath, [buf, "generate"], { cwd, env });
  const stub = await readFile(join(cwd, "gen/millrace/v1/prediction_pb2_grpc.py"), "utf8");
  assert.match(stub, /class PredictionServiceStub/);

  const image = await sharp({ create: { width: 20, height: 20, channels: 3, background: "#c08040" } })
    .png()
    .toBuffer();
  await writeFile(join(cwd, "picture.png"), image);
  const { address } = await startPredictionService(t);
  const { stdout } = await run(python, ["classify.py", address, "picture.png", "classify.py"], { cwd, env });
  const [picture = "", text = ""] = stdout.trim().split("\n");
  assert.match(picture, /^picture\.png( (cat|dog|fox) \d+\.\d%){3}$/);
  assert.equal(text, "classify.py IMAGE_UNREADABLE");
});
