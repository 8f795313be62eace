import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { parse } from "yaml";
import { type ServiceName, servicePorts } from "../../../lib/config.ts";
import { startedConfig } from "../docs/started-config.ts";

const root = new URL("../../../", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), "utf8");

interface ComposeService {
  readonly image: string;
  readonly command?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly ports: readonly string[];
  readonly volumes?: readonly string[];
  readonly depends_on?: object;
}

const dockerfile = read("deploy/Dockerfile");
const compose = parse(read("deploy/compose.yaml"), { merge: true }) as {
  readonly services: Readonly<Record<string, ComposeService>>;
  readonly volumes: object;
};
const names = Object.keys(servicePorts) as ServiceName[];

/** What ENV lines of the image set. */
const imageEnvironment = Object.fromEntries(
  [...dockerfile.matchAll(/^ENV (\w+)=(\S+)$/gm)].map(([, name = "", value = ""]) => [name, value]),
);

test("what the Dockerfile copies exists, and .dockerignore lets just that through", () => {
  const copied = [...dockerfile.matchAll(/^COPY (.+) \S+$/gm)].flatMap(([, sources = ""]) => sources.split(" "));
  assert.ok(copied.length > 0);
  for (const path of copied) assert.ok(statSync(new URL(path, root)), path);
  const allowed = read(".dockerignore").match(/(?<=^!).+$/gm);
  assert.deepEqual([...(allowed ?? [])].sort(), copied.sort());
});

test("the compose file has every service, after the broker, on its own port of loopback, with its own program", () => {
  for (const name of names) {
    const service = compose.services[name];
    assert.ok(service, name);
    const program = service.command?.at(-1) ?? "";
    assert.equal(program, `services/${name}/main.ts`);
    assert.ok(statSync(new URL(program, root)));
    assert.deepEqual(service.ports, [`127.0.0.1:${servicePorts[name]}:${imageEnvironment.MILLRACE_PORT}`]);
    assert.deepEqual(service.depends_on, { nats: { condition: "service_healthy" } });
  }
});

test("every port is published on loopback alone, every image is pinned, every volume is declared", () => {
  for (const [name, { image, ports, volumes = [] }] of Object.entries(compose.services)) {
    for (const port of ports) assert.match(port, /^127\.0\.0\.1:/, name);
    assert.match(image, /^millrace$|:\d+\.\d+\.\d+/, name);
    for (const volume of volumes) assert.ok((volume.split(":")[0] ?? "") in compose.volumes, volume);
  }
});

test("a container that is told of a broker alone keeps artifacts there: no folder in it is its user's", async () => {
  const { artifacts } = await startedConfig("ingestion", {
    ...imageEnvironment,
    MILLRACE_NATS_URL: "nats://elsewhere:4222",
  });
  assert.equal(artifacts, "nats://millrace-artifacts");
});

for (const name of names) {
  test(`the ${name} service accepts the environment that the image and the compose file give it`, async () => {
    const environment = { ...imageEnvironment, ...compose.services[name]?.environment };
    const config = await startedConfig(name, environment);
    assert.deepEqual(
      [config.natsUrl, config.artifacts, config.host, config.port],
      ["nats://nats:4222", "nats://millrace-artifacts", "0.0.0.0", 8080],
    );
  });
}
