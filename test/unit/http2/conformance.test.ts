/**
 * What h2spec thinks of the server. MILLRACE_TEST_H2SPEC is the path of one: `go install github.com/summerwind/h2spec/cmd/h2spec@latest`.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { startServer } from "../rpc/server-fixture.ts";

const h2spec = process.env.MILLRACE_TEST_H2SPEC;

/**
 * What is right all the same: whoever does not begin as HTTP/2 does is told so in HTTP/1.1, for which the port is as well; and RFC 9113 has given up
 * the priorities of RFC 7540, whose rules h2spec knows.
 */
const excused = [
  "Sends invalid connection preface",
  "Sends HEADERS frame that depend on itself",
  "Sends PRIORITY frame that depend on itself",
];

test("h2spec finds nothing but what is right all the same", {
  skip: h2spec === undefined && "MILLRACE_TEST_H2SPEC names no h2spec",
}, async (t) => {
  const { port } = await startServer(t);
  const output = await new Promise<string>((resolve) => {
    const options = ["--host", "127.0.0.1", "--port", String(port), "--timeout", "5"];
    execFile(h2spec ?? "", options, { timeout: 120_000 }, (_error, stdout) => resolve(stdout));
  });
  assert.match(output, /\d+ tests, \d{3} passed/);
  const [, failures = ""] = output.split(/^Failures:/m);
  const found = [...failures.matchAll(/× \d+: (.+)/g)].map(([, name]) => name ?? "");
  assert.deepEqual(
    found.filter((name) => !excused.includes(name)),
    [],
    output,
  );
});
