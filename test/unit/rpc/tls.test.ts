/** The same port over TLS: every protocol, clients' certificates, and a certificate that is exchanged. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { copyFile } from "node:fs/promises";
import { request } from "node:https";
import { connect } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { createClient, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
  Http2SessionManager,
} from "@connectrpc/connect-node";
import { PredictionService } from "../../../gen/millrace/v1/prediction_pb.ts";
import { createLogger } from "../../../lib/log.ts";
import { readTlsIdentity, tlsFilesOf, watchTlsFiles } from "../../../lib/rpc/tls-files.ts";
import { eventually } from "../../helpers/bus.ts";
import { makeCertificate } from "../../helpers/certificates.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { predictRequest, startServer } from "./server-fixture.ts";

type Secure = { ca: Buffer; cert?: Buffer; key?: Buffer };
type TransportFactory = (baseUrl: string, nodeOptions: Secure, sessionManager: Http2SessionManager) => Transport;

const transports: Readonly<Record<string, TransportFactory>> = {
  "Connect over HTTP/1.1": (baseUrl, nodeOptions) =>
    createConnectTransport({ baseUrl, httpVersion: "1.1", nodeOptions }),
  "Connect over HTTP/2": (baseUrl, _, sessionManager) =>
    createConnectTransport({ baseUrl, httpVersion: "2", sessionManager }),
  "gRPC-Web over HTTP/1.1": (baseUrl, nodeOptions) =>
    createGrpcWebTransport({ baseUrl, httpVersion: "1.1", nodeOptions }),
  gRPC: (baseUrl, _, sessionManager) => createGrpcTransport({ baseUrl, sessionManager }),
};

for (const [name, createTransport] of Object.entries(transports)) {
  test(`${name} gets an answer over TLS`, async (t) => {
    const { cert, key } = makeCertificate(await tempFolder(t), "server");
    const { url, closeLater } = await startServer(t, { tls: { cert, key } });
    assert.match(url, /^https:/);
    const sessions = new Http2SessionManager(url, undefined, { ca: cert });
    closeLater(() => sessions.abort());
    const client = createClient(PredictionService, createTransport(url, { ca: cert }, sessions));
    assert.equal((await client.predict(predictRequest("cat"))).predictions[0]?.label, "cat");
  });
}

test("probes are answered over TLS, and clear text is not", async (t) => {
  const { cert, key } = makeCertificate(await tempFolder(t), "server");
  const { url, port, closeLater } = await startServer(t, { tls: { cert, key } });
  const status = await new Promise((resolve, reject) => {
    const probe = request(`${url}/readyz`, { ca: cert, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    probe.on("error", reject).end();
    closeLater(() => probe.destroy());
  });
  assert.equal(status, 200);
  await assert.rejects(fetch(`http://127.0.0.1:${port}/readyz`));
});

test("a peer that never begins TLS does not hold up the end", async (t) => {
  const { cert, key } = makeCertificate(await tempFolder(t), "server");
  const { port, close } = await startServer(t, { tls: { cert, key } });
  const peer = connect(port, "127.0.0.1");
  await once(peer, "connect");
  const ended = once(peer, "close");
  await close(60_000);
  await ended;
});

test("where clients must have a certificate, only those with the right one get in", async (t) => {
  const folder = await tempFolder(t);
  const server = makeCertificate(folder, "server");
  const [known, stranger] = [makeCertificate(folder, "known"), makeCertificate(folder, "stranger")];
  const { url, closeLater } = await startServer(t, { tls: { ...server, clientCa: known.cert } });
  const predict = async (own: { cert?: Buffer; key?: Buffer }) => {
    const sessions = new Http2SessionManager(url, undefined, { ca: server.cert, ...own });
    closeLater(() => sessions.abort());
    const client = createClient(PredictionService, createGrpcTransport({ baseUrl: url, sessionManager: sessions }));
    return (await client.predict(predictRequest("cat"))).predictions[0]?.label;
  };
  assert.equal(await predict({ cert: known.cert, key: known.key }), "cat");
  await assert.rejects(predict({}));
  await assert.rejects(predict({ cert: stranger.cert, key: stranger.key }));
});

test("a certificate that is renewed is shown to new connections, and one that is broken is not", async (t) => {
  const folder = await tempFolder(t);
  const [first, second] = [makeCertificate(folder, "first"), makeCertificate(folder, "second")];
  const files = { cert: join(folder, "tls.crt"), key: join(folder, "tls.key") };
  const use = async ({ certFile, keyFile }: { certFile: string; keyFile: string }) => {
    await copyFile(certFile, files.cert);
    await copyFile(keyFile, files.key);
  };
  await use(first);
  const server = await startServer(t, { tls: await readTlsIdentity(files) });
  const logger = createLogger({ service: "test", level: "silent" });
  using _watching = watchTlsFiles({ files, logger, pollMs: 20 }, server.setIdentity);
  const shown = () =>
    new Promise<string>((resolve, reject) => {
      const socket = connectTls({ port: server.port, host: "127.0.0.1", rejectUnauthorized: false }, () => {
        const { CN } = socket.getPeerCertificate().subject;
        socket.destroy();
        resolve(String(CN));
      });
      socket.on("error", reject);
    });
  assert.equal(await shown(), "first");
  await use({ certFile: second.certFile, keyFile: first.keyFile });
  assert.equal(await shown(), "first");
  await use(second);
  await eventually("the new one is shown", async () => (await shown()) === "second");
});

test("files that are missing or do not belong together are refused, by name", async (t) => {
  const folder = await tempFolder(t);
  const [first, second] = [makeCertificate(folder, "first"), makeCertificate(folder, "second")];
  const refused = (message: RegExp) => ({ code: "CONFIGURATION_INVALID", message });
  await assert.rejects(readTlsIdentity({ cert: "/nowhere.crt", key: first.keyFile }), refused(/nowhere\.crt.*ENOENT/));
  await assert.rejects(
    readTlsIdentity({ cert: first.certFile, key: second.keyFile }),
    refused(/second\.key.*mismatch/),
  );
  assert.throws(() => tlsFilesOf({ tlsCertFile: first.certFile }), refused(/belong together/));
  assert.equal(tlsFilesOf({}), undefined);
});
