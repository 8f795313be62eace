import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { DescService } from "@bufbuild/protobuf";

const gen = join(import.meta.dirname, "../../gen");

/** Every service that the contracts declare, by its full name: found in gen/, so that no list can be out of date. */
export async function declaredServices(): Promise<ReadonlyMap<string, DescService>> {
  const paths = (await readdir(gen, { recursive: true })).filter((path) => path.endsWith("_pb.ts"));
  const modules: object[] = await Promise.all(paths.map((path) => import(pathToFileURL(join(gen, path)).href)));
  const services = modules.flatMap((module) => Object.values(module)).filter(isService);
  return new Map(services.map((service) => [service.typeName, service]));
}

function isService(exported: unknown): exported is DescService {
  return typeof exported === "object" && exported !== null && "kind" in exported && exported.kind === "service";
}
