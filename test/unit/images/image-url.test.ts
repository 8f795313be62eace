/** Fetching images from addresses that strangers name, from real servers on loopback. */
import assert from "node:assert/strict";
import type { LookupAddress } from "node:dns";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { createImageFetcher, fetchImage, type ImageUrlOptions } from "../../../lib/images/image-url.ts";
import { isPublicAddress } from "../../../lib/images/public-address.ts";

const image = Buffer.from("the bytes of an image");

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** A server on loopback; returns its port. */
async function startServer(t: TestContext, answer: Answer): Promise<number> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

const sendImage: Answer = (_request, response) => {
  response.writeHead(200, { "content-type": "image/png" }).end(image);
};

const loopback: LookupAddress = { address: "127.0.0.1", family: 4 };

/** As in service, but that loopback is allowed and every name leads there. */
const local: ImageUrlOptions = {
  hosts: ["*"],
  isAllowed: (address) => address === "127.0.0.1",
  resolve: async () => [loopback],
};

const refused = (reason: RegExp) => ({ code: "IMAGE_URL_REFUSED", message: reason });
const failed = (reason: RegExp) => ({ code: "IMAGE_NOT_FETCHED", message: reason });

test("an image is fetched, over redirections too, and by the name that was asked for", async (t) => {
  const hosts: (string | undefined)[] = [];
  const port = await startServer(t, (request, response) => {
    hosts.push(request.headers.host);
    if (request.url === "/cat.png") sendImage(request, response);
    else response.writeHead(302, { location: "/cat.png" }).end();
  });
  assert.deepEqual(await fetchImage(`http://images.test:${port}/cat.png`, local), image);
  assert.deepEqual(await fetchImage(`http://images.test:${port}/moved`, local), image);
  assert.deepEqual(new Set(hosts), new Set([`images.test:${port}`]));
});

test("what is not http, names a user, or is no URL is refused, and no secret of it is in the error", async () => {
  for (const url of ["file:///etc/passwd", "ftp://x.test/", "gopher://x.test/", "data:image/png;base64,AA=="]) {
    await assert.rejects(fetchImage(url, local), refused(/only http and https/));
  }
  for (const url of ["no url", "http://", "//x.test/cat.png"])
    await assert.rejects(fetchImage(url, local), refused(/no URL/));
  const secret = fetchImage("http://user:swordfish@x.test/cat.png?signature=swordfish", local);
  await assert.rejects(secret, (error: Error) => {
    assert.match(error.message, /user name or a password/);
    assert.doesNotMatch(error.message, /swordfish/);
    return true;
  });
});

test("only hosts on the list are asked", async (t) => {
  const port = await startServer(t, sendImage);
  const listed: ImageUrlOptions = { ...local, hosts: ["one.test", "*.many.test"] };
  for (const host of ["one.test", "ONE.test", "a.many.test", "a.b.many.test"]) {
    assert.deepEqual(await fetchImage(`http://${host}:${port}/`, listed), image);
  }
  for (const host of ["other.test", "many.test", "notmany.test", "one.test.evil.test"]) {
    await assert.rejects(
      fetchImage(`http://${host}:${port}/`, listed),
      refused(/is not among those that may be asked/),
    );
  }
  await assert.rejects(
    createImageFetcher([])("http://one.test/", new AbortController().signal),
    refused(/fetches no images/),
  );
});

test("a name that leads into a private network is refused, and the address is not told", async () => {
  const isPublic: ImageUrlOptions = { hosts: ["*"] };
  for (const address of ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"]) {
    const resolve = async () => [{ address, family: address.includes(":") ? 6 : 4 }];
    await assert.rejects(fetchImage("http://rebound.test/", { ...isPublic, resolve }), (error: Error) => {
      assert.match(error.message, /not on the public internet/);
      assert.ok(!error.message.includes(address));
      return true;
    });
  }
  // One good address among bad ones may not be the one that is connected to.
  const resolve = async () => [{ address: "93.184.215.14", family: 4 }, loopback];
  await assert.rejects(fetchImage("http://mixed.test/", { ...isPublic, resolve }), refused(/public internet/));
});

test("an address written in any of its forms is refused all the same", async () => {
  const hosts = [
    "127.0.0.1",
    "127.1",
    "0x7f.1",
    "2130706433",
    "0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
  ];
  for (const host of hosts) {
    await assert.rejects(fetchImage(`http://${host}/`, { hosts: ["*"] }), refused(/public internet/), host);
  }
});

test("a redirection goes through the same checks", async (t) => {
  const locations: Readonly<Record<string, string>> = { "/loop": "/loop", "/nowhere": "http://[" };
  const port = await startServer(t, (request, response) => {
    response
      .writeHead(307, { location: locations[request.url ?? ""] ?? "http://169.254.169.254/latest/meta-data" })
      .end();
  });
  await assert.rejects(fetchImage(`http://x.test:${port}/nowhere`, local), failed(/what is no URL/));
  await assert.rejects(fetchImage(`http://x.test:${port}/`, local), refused(/public internet/));
  await assert.rejects(fetchImage(`http://x.test:${port}/loop`, local), failed(/more than 3 times/));
  const listed = { ...local, hosts: ["x.test"] };
  await assert.rejects(fetchImage(`http://x.test:${port}/`, listed), refused(/169\.254\.169\.254 is not among those/));
});

test("the connection goes to the address that was checked, whatever the name says later", async (t) => {
  const port = await startServer(t, sendImage);
  const answers: LookupAddress[][] = [[loopback], [{ address: "10.0.0.1", family: 4 }]];
  let asked = 0;
  const resolve = async () => answers[asked++] ?? [];
  assert.deepEqual(await fetchImage(`http://rebinding.test:${port}/`, { ...local, resolve }), image);
  assert.equal(asked, 1);
});

test("too much, announced or not, is refused before it is read to its end", async (t) => {
  let sent = 0;
  const port = await startServer(t, (request, response) => {
    if (request.url === "/announced") {
      response.writeHead(200, { "content-type": "image/png", "content-length": "1000000" }).flushHeaders();
      return;
    }
    response.writeHead(200, { "content-type": "image/png" });
    const more = setInterval(() => {
      sent += 10_000;
      response.write(Buffer.alloc(10_000));
    }, 1);
    response.on("close", () => clearInterval(more));
  });
  const small = { ...local, maxBytes: 100_000 };
  await assert.rejects(fetchImage(`http://x.test:${port}/announced`, small), refused(/more than 100000 bytes/));
  await assert.rejects(fetchImage(`http://x.test:${port}/endless`, small), refused(/more than 100000 bytes/));
  assert.ok(sent < 10_000_000, `${sent} bytes were sent`);
});

test("what is no image by its type, or compressed, is refused; another status is an error with its number", async (t) => {
  const port = await startServer(t, ({ url }, response) => {
    if (url === "/page") response.writeHead(200, { "content-type": "text/html" }).end("<p>");
    else if (url === "/gzip")
      response.writeHead(200, { "content-type": "image/png", "content-encoding": "gzip" }).end("x");
    else response.writeHead(404).end();
  });
  await assert.rejects(fetchImage(`http://x.test:${port}/page`, local), refused(/text\/html, and no image/));
  await assert.rejects(fetchImage(`http://x.test:${port}/gzip`, local), refused(/compressed/));
  await assert.rejects(fetchImage(`http://x.test:${port}/none`, local), failed(/status 404/));
});

test("a server that is silent, breaks off or is not there is an error in time", async (t) => {
  const port = await startServer(t, ({ url, socket }, response) => {
    if (url !== "/break") return;
    response.writeHead(200, { "content-type": "image/png", "content-length": "100" }).write("x");
    setTimeout(() => socket.destroy(), 10);
  });
  await assert.rejects(
    fetchImage(`http://x.test:${port}/silent`, { ...local, timeoutMs: 200 }),
    failed(/within 200 ms/),
  );
  await assert.rejects(fetchImage(`http://x.test:${port}/break`, local), failed(/broke off/));
  await assert.rejects(fetchImage("http://x.test:1/", local), failed(/could not be reached/));
  await assert.rejects(fetchImage("http://x.test/", { ...local, resolve: async () => [] }), failed(/has no address/));
  const never = { ...local, timeoutMs: 100, resolve: () => new Promise<never>(() => {}) };
  await assert.rejects(fetchImage("http://x.test/", never), failed(/within 100 ms/));
});

test("a call that is over stops fetching, with its own reason", async (t) => {
  const leave = new AbortController();
  const port = await startServer(t, () => leave.abort(new Error("the client went away")));
  await assert.rejects(
    fetchImage(`http://x.test:${port}/`, { ...local, signal: leave.signal }),
    /the client went away/,
  );
});

test("public addresses are told from all others", () => {
  const open = ["8.8.8.8", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1"];
  const closed = [
    "168.63.129.16",
    ...["0.0.0.0", "10.0.0.1", "100.64.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1", "172.31.255.255"],
    ...[
      "192.0.0.8",
      "192.0.2.1",
      "192.168.1.1",
      "198.18.0.1",
      "198.51.100.1",
      "203.0.113.9",
      "224.0.0.1",
      "255.255.255.255",
    ],
    ...["::", "::1", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::808:808", "fc00::1", "fe80::1", "fec0::1", "ff02::1"],
    ...["2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "fe80::1%eth0", "localhost", ""],
  ];
  assert.deepEqual(
    open.filter((address) => !isPublicAddress(address)),
    [],
  );
  assert.deepEqual(closed.filter(isPublicAddress), []);
});
