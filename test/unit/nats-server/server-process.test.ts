import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { findNatsServer } from "../../../lib/nats-server/server-binary.ts";
import { launchNatsServer } from "../../../lib/nats-server/server-process.ts";
import { claimStore } from "../../../lib/nats-server/store-claim.ts";
import { startNats } from "../../helpers/nats-server.ts";
import { tempFolder } from "../../helpers/temp-folder.ts";

const binary = await findNatsServer({ env: process.env });
const goneProcess = 2 ** 22 + 1; // above the largest process id of Linux

test("a server listens on loopback with JetStream, keeps its streams over a restart on the same port, and stops", async (t) => {
  const storeFolder = await tempFolder(t);
  const first = await launchNatsServer({ binary, storeFolder });
  assert.equal(first.version, binary.version);
  assert.equal(new URL(first.url).hostname, "127.0.0.1");
  assert.ok((await fetch(`${first.monitorUrl}/healthz`)).ok);
  const nc = await connect({ servers: first.url });
  await (await jetstreamManager(nc)).streams.add({ name: "kept", subjects: ["kept.>"] });
  await nc.close();
  await first.stop();
  await first.stop();
  assert.equal((await first.exited).signal ?? "none", "none", "it ended by itself after SIGTERM");

  await using second = await launchNatsServer({ binary, storeFolder, port: first.port });
  assert.equal(second.url, first.url);
  const again = await connect({ servers: second.url });
  assert.equal((await (await jetstreamManager(again)).streams.info("kept")).config.name, "kept");
  await again.close();
});

test("a server that does not come up is an error with the end of its log", async (t) => {
  const storeFolder = await tempFolder(t);
  const launch = launchNatsServer({ binary, storeFolder, extraConfig: "max_payload: nonsense" });
  await assert.rejects(launch, (error: Error) => {
    assert.match(error.message, /did not start: [\s\S]*nats-server\.conf:\d+/);
    return (error as { code?: string }).code === "BROKER_UNAVAILABLE";
  });
  const missing = { path: join(storeFolder, "missing"), version: binary.version };
  await assert.rejects(launchNatsServer({ binary: missing, storeFolder }), /could not be started/);
  await (await launchNatsServer({ binary, storeFolder })).stop();
});

test("a server that dies by itself says how, with the last lines of its log", async (t) => {
  const server = await launchNatsServer({ binary, storeFolder: await tempFolder(t) });
  process.kill(server.pid, "SIGKILL");
  const { signal, lastLines } = await server.exited;
  assert.equal(signal, "SIGKILL");
  assert.match(lastLines, /Server is ready/);
  await server.stop();
});

test("a second server on the same store is refused while the first one runs", async (t) => {
  const storeFolder = await tempFolder(t);
  await using _first = await launchNatsServer({ binary, storeFolder });
  await assert.rejects(launchNatsServer({ binary, storeFolder }), (error: Error) => {
    assert.ok(error.message.includes(String(process.pid)), error.message);
    return (error as { code?: string }).code === "CONFLICT";
  });
});

test("a store that a newer server has written is not opened", async (t) => {
  const storeFolder = await tempFolder(t);
  await writeFile(join(storeFolder, "nats-server.version"), "99.1.0");
  await assert.rejects(launchNatsServer({ binary, storeFolder }), /written by nats-server 99\.1\.0/);
});

test("a server ends when the process that started it is killed", async (t) => {
  const { owner, serverPid } = await startOwner(t, await tempFolder(t));
  owner.kill("SIGKILL");
  await until(async () => !(await isRunning(serverPid)), "the server has ended");
});

test("a server whose owner and guard were killed is stopped by the next start", {
  skip: process.platform !== "linux",
}, async (t) => {
  const storeFolder = await tempFolder(t);
  const { owner, serverPid } = await startOwner(t, storeFolder);
  process.kill(await guardOf(serverPid), "SIGKILL");
  owner.kill("SIGKILL");
  await once(owner, "exit");
  assert.ok(await isRunning(serverPid));
  await claimStore(storeFolder, binary.version);
  assert.equal(await isRunning(serverPid), false);
});

test("a stranger who was given the number of a server that is gone is left alone", async (t) => {
  const storeFolder = await tempFolder(t);
  const stranger = spawn("sleep", ["60"]);
  t.after(() => stranger.kill());
  await leaveClaim(storeFolder, `owner-${goneProcess}.id.server-${stranger.pid}`);
  await claimStore(storeFolder, binary.version);
  assert.ok(await isRunning(stranger.pid ?? 0));
});

test("of many starts at once one claims the store, whether it is new or was left behind by a crash", async (t) => {
  for (const left of [undefined, `owner-${goneProcess}.id`, `owner-${goneProcess}.id.server-${goneProcess}`]) {
    const storeFolder = await tempFolder(t);
    if (left !== undefined) await leaveClaim(storeFolder, left);
    const starts = Array.from({ length: 12 }, () => claimStore(storeFolder, binary.version));
    const outcomes = await Promise.allSettled(starts);
    const refusals = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? outcome.reason.code : []));
    assert.deepEqual(refusals, new Array(11).fill("CONFLICT"), left);

    const claim = outcomes.find((outcome) => outcome.status === "fulfilled")?.value;
    await claim?.serverStarted(process.pid);
    await claim?.release();
    await claim?.serverStarted(process.pid);
    assert.deepEqual(await readdir(join(storeFolder, "nats-server.owner")), ["free"]);
    await (await claimStore(storeFolder, binary.version)).release();
  }
});

test("the test helper's server comes back on its port and store after it was killed", async (t) => {
  const nats = await startNats(t);
  const { pid } = nats;
  await nats.kill();
  assert.equal(await isRunning(pid), false);
  await nats.restart();
  assert.notEqual(nats.pid, pid);
  const nc = await connect({ servers: nats.url });
  await nc.close();
});

/** What a process that was killed has left of its claim. */
async function leaveClaim(storeFolder: string, name: string): Promise<void> {
  await mkdir(join(storeFolder, "nats-server.owner"));
  await writeFile(join(storeFolder, "nats-server.owner", name), "");
}

/** A process of its own that starts a server on the folder and then only waits. */
async function startOwner(t: TestContext, storeFolder: string): Promise<{ owner: ChildProcess; serverPid: number }> {
  const code = `
    import { launchNatsServer } from ${JSON.stringify(import.meta.resolve("../../../lib/nats-server/server-process.ts"))};
    const options = ${JSON.stringify({ binary, storeFolder })};
    console.log((await launchNatsServer(options)).pid);`;
  const owner = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => owner.kill("SIGKILL"));
  const [line] = (await once(owner.stdout, "data")) as [Buffer];
  return { owner, serverPid: Number(line.toString()) };
}

async function guardOf(serverPid: number): Promise<number> {
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const command = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (command.includes(`nats-server-guard\0${serverPid}\0`)) return Number(pid);
  }
  return assert.fail(`no guard of ${serverPid}`);
}

/** A process that has ended but was not collected by its parent does not count as running. */
async function isRunning(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  return process.platform !== "linux" || (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")) !== "";
}

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  for (const deadline = Date.now() + 20_000; !(await condition()); await delay(20)) {
    assert.ok(Date.now() < deadline, `not within 20 s: ${what}`);
  }
}
