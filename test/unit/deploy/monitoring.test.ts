import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { parse } from "yaml";
import { servicePorts } from "../../../lib/config.ts";
import { type MetricName, metricTable } from "../../../lib/telemetry/metric-table.ts";
import { prometheusName } from "../../../scripts/generate-telemetry-docs.ts";

const deploy = new URL("../../../deploy/", import.meta.url);
const read = (path: string) => readFileSync(new URL(path, deploy), "utf8");

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description: string };
}

const { panels } = JSON.parse(read("grafana/millrace.json")) as { readonly panels: readonly Panel[] };
const { groups } = parse(read("prometheus/alerts.yaml")) as { groups: readonly { rules: readonly Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);
const queries = [
  ...panels.flatMap(({ title, targets = [] }) =>
    targets.map(({ expr, legendFormat }) => ({ title, expr, legendFormat })),
  ),
  ...rules.map(({ alert, expr, annotations }) => ({ title: alert, expr, legendFormat: annotations.summary })),
];

const labelName = (attribute: string) => attribute.replaceAll(".", "_");

/** Labels by the name of a series. `up` is Prometheus's own, and so are `job` and `instance`. */
const seriesLabels = new Map<string, ReadonlySet<string>>([["up", new Set(["job", "instance"])]]);
for (const name of Object.keys(metricTable) as MetricName[]) {
  const { kind, attributes } = metricTable[name];
  const suffixes = kind === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
  const labels = [...attributes.map(labelName), "service_name", "job", "instance"];
  for (const suffix of suffixes) {
    seriesLabels.set(prometheusName(name) + suffix, new Set([...labels, ...(suffix === "_bucket" ? ["le"] : [])]));
  }
}

/** Words of PromQL that the queries use. */
const keywords = new Set("sum max count by and or absent rate increase histogram_quantile".split(" "));

/** Names in a query that are neither words of the language, nor values, nor durations. */
function namesIn(expr: string): string[] {
  const bare = expr.replaceAll(/"[^"]*"/g, "").replaceAll(/\[[^\]]*\]/g, "");
  return [...bare.matchAll(/[a-z_:][a-z0-9_:]*/gi)].map(([name]) => name).filter((name) => !keywords.has(name));
}

for (const { title, expr, legendFormat } of queries) {
  test(`"${title}" asks for metrics and labels that there are: ${expr}`, () => {
    const names = namesIn(expr);
    const series = names.filter((name) => seriesLabels.has(name));
    assert.ok(series.length > 0);
    const labels = names.filter((name) => !seriesLabels.has(name));
    for (const label of labels) {
      assert.ok(
        series.every((name) => seriesLabels.get(name)?.has(label)),
        `${label} is no label of ${series}`,
      );
    }
    for (const [, label = ""] of legendFormat.matchAll(/\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}/g)) {
      assert.ok(
        series.some((name) => seriesLabels.get(name)?.has(label)),
        `${label} in the legend`,
      );
    }
  });
}

test("every alert says how bad it is, what is wrong and what to do", () => {
  assert.ok(rules.length >= 6);
  assert.equal(new Set(rules.map(({ alert }) => alert)).size, rules.length);
  for (const { alert, labels, annotations } of rules) {
    assert.match(labels.severity, /^(warning|critical)$/, alert);
    assert.ok(annotations.summary.length > 0 && annotations.description.length > 0, alert);
  }
});

test("panels have ids of their own and do not overlap, and all kinds of work are shown", () => {
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  const taken = new Set<string>();
  for (const { title, gridPos } of panels) {
    assert.ok(gridPos.x + gridPos.w <= 24, title);
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        assert.ok(!taken.has(`${x},${y}`), title);
        taken.add(`${x},${y}`);
      }
    }
  }
  const rows = panels.flatMap(({ type, title }) => (type === "row" ? [title] : []));
  assert.deepEqual(rows, ["Pipeline", "Consumers", "Training", "Serving", "Calls", "Processes"]);
});

test("the second compose file sets variables of every service, mounts files that are there, on loopback alone", () => {
  const { services, volumes } = parse(read("compose.telemetry.yaml"), { merge: true }) as {
    readonly services: Readonly<
      Record<string, { image?: string; ports?: string[]; volumes?: string[]; environment?: Record<string, string> }>
    >;
    readonly volumes: object;
  };
  for (const name of Object.keys(servicePorts)) {
    assert.match(services[name]?.environment?.OTEL_EXPORTER_OTLP_LOGS_ENDPOINT ?? "", /^http:\/\/collector:4318\//);
  }
  for (const [name, { image, ports = [], volumes: mounted = [] }] of Object.entries(services)) {
    if (!(name in servicePorts)) assert.match(image ?? "", /:v?\d+\.\d+\.\d+$/, name);
    for (const port of ports) assert.match(port, /^127\.0\.0\.1:/, name);
    for (const volume of mounted) {
      const [source = ""] = volume.split(":");
      assert.ok(source.startsWith("./") ? statSync(new URL(source, deploy)) : source in volumes, volume);
    }
  }
});

test("Prometheus scrapes every service at the port of the image, and reads the alerts", () => {
  const config = parse(read("prometheus/prometheus.yaml")) as {
    readonly rule_files: readonly string[];
    readonly scrape_configs: readonly {
      job_name: string;
      dns_sd_configs: readonly { names: string[]; port: number }[];
    }[];
  };
  assert.deepEqual(config.rule_files, ["alerts.yaml"]);
  const [scraped] = config.scrape_configs;
  assert.equal(scraped?.job_name, "millrace");
  assert.deepEqual(scraped?.dns_sd_configs[0]?.names, Object.keys(servicePorts));
  const imagePort = /^ENV MILLRACE_PORT=(\d+)$/m.exec(read("Dockerfile"))?.[1];
  assert.equal(String(scraped?.dns_sd_configs[0]?.port), imagePort);
});

test("each pipeline of the collector is made of parts that are configured, and listens where the services send", () => {
  const config = parse(read("collector.yaml")) as Readonly<Record<string, object>> & {
    readonly receivers: { otlp: { protocols: { http: { endpoint: string } } } };
    readonly service: { pipelines: Record<string, Record<string, string[]>> };
  };
  assert.equal(config.receivers.otlp.protocols.http.endpoint, "0.0.0.0:4318");
  assert.deepEqual(Object.keys(config.service.pipelines), ["traces", "logs"]);
  for (const parts of Object.values(config.service.pipelines)) {
    for (const [kind, names] of Object.entries(parts)) {
      for (const name of names) assert.ok(name in (config[kind] ?? {}), `${kind}: ${name}`);
    }
  }
});
