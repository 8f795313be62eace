import type { DescService } from "@bufbuild/protobuf";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import {
  type Health as HealthService,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../gen/grpc/health/v1/health_pb.ts";
import { createChanges } from "../changes.ts";

/** The name that stands for the server as a whole. */
const wholeServer = "";

/**
 * What a server says about itself in `grpc.health.v1.Health`. Nothing serves until it is said to.
 */
export interface Health {
  /** Sets the server as a whole and each service that is known. Without effect after `drain`. */
  setAll(serving: boolean): void;
  /** Makes services known, as not serving. The server does this for its own. */
  register(services: Iterable<DescService>): void;
  /** From now on nothing serves: clients go elsewhere before the connections close. */
  drain(): void;
  /** Whether the server as a whole serves. */
  readonly serving: boolean;
  readonly implementation: ServiceImpl<typeof HealthService>;
}

export function createHealth(): Health {
  const statuses = new Map<string, ServingStatus>([[wholeServer, ServingStatus.NOT_SERVING]]);
  const changes = createChanges();
  let draining = false;

  function update(names: Iterable<string>, serving: boolean) {
    if (draining) return;
    for (const name of names) statuses.set(name, serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING);
    changes.notify();
  }

  return {
    setAll: (serving) => update([...statuses.keys()], serving),
    register: (services) =>
      update(
        [...services].map((service) => service.typeName),
        false,
      ),
    drain() {
      update([...statuses.keys()], false);
      draining = true;
    },
    get serving() {
      return statuses.get(wholeServer) === ServingStatus.SERVING;
    },
    implementation: {
      check({ service }) {
        const status = statuses.get(service);
        if (status === undefined) throw new ConnectError(`this server has no service ${service}`, Code.NotFound);
        return { status };
      },
      list: () => ({ statuses: Object.fromEntries([...statuses].map(([name, status]) => [name, { status }])) }),
      async *watch({ service }, { signal }) {
        let last: ServingStatus | undefined;
        for (;;) {
          const status = statuses.get(service) ?? ServingStatus.SERVICE_UNKNOWN;
          if (status !== last) {
            last = status;
            yield { status };
          } else if (signal.aborted) {
            return;
          } else {
            await changes.next(signal);
          }
        }
      },
    },
  };
}
