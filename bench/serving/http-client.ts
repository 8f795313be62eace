/** POST requests over HTTP/1.1 on connections that are kept, one request at a time on each. */
import { Pool } from "undici";
import type { Target } from "./load.ts";
import type { LoadClient } from "./load-client.ts";

const refusals: readonly number[] = [429, 503];

export async function connectHttp({ url, headers, bodies }: Target, connections: number): Promise<LoadClient> {
  const { origin, pathname: path } = new URL(url);
  const pool = new Pool(origin, { connections, pipelining: 1 });
  return {
    async send(index) {
      try {
        const body = bodies[index % bodies.length] ?? null;
        const answer = await pool.request({ method: "POST", path, headers, body });
        const bytes = await answer.body.bytes();
        if (answer.statusCode === 200) return { kind: "answered", body: bytes };
        if (refusals.includes(answer.statusCode)) return { kind: "refused" };
        return {
          kind: "failed",
          reason: `HTTP status ${answer.statusCode}: ${Buffer.from(bytes).toString().slice(0, 200)}`,
        };
      } catch (thrown) {
        return { kind: "failed", reason: thrown instanceof Error ? thrown.message : String(thrown) };
      }
    },
    close: () => pool.destroy(),
  };
}
