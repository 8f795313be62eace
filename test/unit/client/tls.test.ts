/** Certificates of the client's own choice, against a server that speaks TLS. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError } from "@connectrpc/connect";
import { createMillraceClient, type MillraceClientOptions } from "../../../client/client.ts";
import { createTransport as createBrowserTransport } from "../../../client/transport-browser.ts";
import { makeCertificate } from "../../helpers/certificates.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";
import { predictRequest, rejection, startServer } from "../rpc/server-fixture.ts";
import { connectClient } from "./prediction-server.ts";

type Tls = NonNullable<MillraceClientOptions["tls"]>;

test("a server whose certificate Node does not trust is called by a client that is given who signed it", async (t) => {
  const folder = await tempFolder(t);
  const [identity, stranger] = [makeCertificate(folder, "server"), makeCertificate(folder, "stranger")];
  const server = await startServer(t, { tls: identity });
  const predict = async (tls?: Tls) => {
    const { predictions } = connectClient(server, { retries: 0, ...(tls && { tls }) });
    return (await predictions.predict(predictRequest("cat"))).predictions[0]?.label;
  };
  assert.equal(await predict({ ca: identity.cert }), "cat");
  assert.equal(await predict({ ca: identity.cert.toString() }), "cat");
  for (const tls of [undefined, { ca: stranger.cert }]) {
    assert.equal(Code[ConnectError.from(await rejection(predict(tls))).code], "Unavailable");
  }
});

test("a client shows its certificate to a server that asks for one", async (t) => {
  const folder = await tempFolder(t);
  const identity = makeCertificate(folder, "server");
  const [own, other] = [makeCertificate(folder, "known"), makeCertificate(folder, "stranger")];
  const server = await startServer(t, { tls: { ...identity, clientCa: own.cert } });
  const predict = async ({ cert, key }: Tls) => {
    const { predictions } = connectClient(server, {
      retries: 0,
      tls: { ca: identity.cert, ...(cert && key && { cert, key }) },
    });
    return (await predictions.predict(predictRequest("cat"))).predictions[0]?.label;
  };
  assert.equal(await predict(own), "cat");
  await assert.rejects(predict(other));
  await assert.rejects(predict({}));
});

test("certificates that would not be used are refused", () => {
  const tls = { ca: "-----BEGIN CERTIFICATE-----" };
  assert.throws(() => createMillraceClient({ baseUrl: "http://127.0.0.1:1", tls }), /tls is given, but http:/);
  assert.throws(() => createBrowserTransport("https://127.0.0.1:1", tls), /tls is for Node/);
});
