import type { Health } from "./health.ts";
import type { HttpRequest, HttpResponse } from "./port.ts";

export interface Probes {
  readonly health: Health;
  /** The text that `GET /metrics` answers with. Without it there is nothing at that path. */
  readonly metricsText?: (() => Promise<string>) | undefined;
}

/**
 * Answers what orchestrators and Prometheus ask by plain GET: `/healthz` (the process answers), `/readyz` (it serves) and
 * `/metrics`. False leaves the request to somebody else.
 */
export function answerProbe({ method, url = "" }: HttpRequest, response: HttpResponse, probes: Probes): boolean {
  if (method !== "GET") return false;
  const { health, metricsText } = probes;
  const [path] = url.split("?", 1);
  if (path === "/healthz") answer(response, 200, "ok\n");
  else if (path === "/readyz" && health.serving) answer(response, 200, "ok\n");
  else if (path === "/readyz") answer(response, 503, "not serving\n");
  else if (path === "/metrics" && metricsText !== undefined) void answerMetrics(response, metricsText);
  else return false;
  return true;
}

async function answerMetrics(response: HttpResponse, metricsText: () => Promise<string>): Promise<void> {
  // While telemetry is being shut down there is none; whoever collects comes again.
  const text = await metricsText().catch(() => undefined);
  if (text === undefined) answer(response, 503, "there are no metrics now\n");
  else answer(response, 200, text, "text/plain; version=0.0.4; charset=utf-8");
}

function answer(response: HttpResponse, status: number, text: string, contentType = "text/plain"): void {
  response.writeHead(status, { "content-type": contentType });
  response.end(text);
}
