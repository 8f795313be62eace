import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { suite, test } from "node:test";
import { inspect, promisify } from "node:util";
import { AppError, type ErrorCode } from "../../lib/errors.ts";
import { openTestBus, requestRun } from "../helpers/bus.ts";
import { makeCertificate } from "../helpers/certificates.ts";
import { startNats } from "../helpers/nats-server.ts";
import { tempFolder } from "../helpers/temp-folder.ts";

const isError = (code: ErrorCode, message: RegExp) => (thrown: unknown) => {
  assert.ok(thrown instanceof AppError, String(thrown));
  assert.equal(thrown.code, code);
  assert.match(thrown.message, message);
  return true;
};

suite("a connection", { concurrency: 3 }, () => {
  test("takes the credentials of any one of several addresses, and refuses different ones", async (t) => {
    const nats = await startNats(t, { extraConfig: "authorization { users: [ { user: u, password: p } ] }" });
    const { url } = nats;
    const withLogin = url.replace("://", "://u:p@");
    for (const several of [`${url},${withLogin}`, `${withLogin},${url}`, `${withLogin},${withLogin}`]) {
      await using bus = await openTestBus({ url: several });
      await requestRun(bus, "r1");
    }
    const different = openTestBus({ url: `${withLogin},${url.replace("://", "://u:secret@")}` });
    await assert.rejects(different, (thrown) => {
      assert.ok(!inspect(thrown).includes("secret"));
      return isError("CONFIGURATION_INVALID", /different credentials/)(thrown);
    });
  });

  test("tells no credentials to a server without TLS where TLS is asked for", async () => {
    let heard = "";
    const server = createServer((socket) => {
      socket.on("data", (data) => (heard += data)).on("error", () => {});
      socket.write('INFO {"server_id":"plain","version":"2.10.0","proto":1,"max_payload":1048576}\r\n');
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { port } = server.address() as AddressInfo;
    const opened = openTestBus({ url: `nats://127.0.0.1:${port},tls://u:p@127.0.0.1:${port}` });
    await assert.rejects(opened, isError("CONFIGURATION_INVALID", /speaks no TLS/));
    server.close();
    assert.equal(heard, "");
  });

  test("speaks TLS with a server whose certificate is trusted, and with no other", async (t) => {
    const { certFile, keyFile } = makeCertificate(await tempFolder(t), "nats");
    const nats = await startNats(t, { extraConfig: `tls { cert_file: "${certFile}", key_file: "${keyFile}" }` });
    const url = `tls://localhost:${nats.port}`;
    await assert.rejects(openTestBus({ url }), isError("BROKER_UNAVAILABLE", /self-signed certificate/));
    const program = `
      import { openTestBus } from ${JSON.stringify(import.meta.resolve("../helpers/bus.ts"))};
      const bus = await openTestBus({ url: ${JSON.stringify(url)} });
      console.log(bus.nc.info.tls_required);
      await bus[Symbol.asyncDispose]();`;
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: certFile };
    const args = ["--import", "tsx", "--input-type=module", "-e", program];
    assert.equal((await promisify(execFile)(process.execPath, args, { env })).stdout, "true\n");
  });
});
