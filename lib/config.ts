import { hostname } from "node:os";
import { z } from "zod";
import { editDistance } from "./edit-distance.ts";
import { AppError } from "./errors.ts";
import { logLevels } from "./log.ts";

/**
 * Configuration from environment variables.
 *
 * A setting `fooBar` of the service `training` is read from MILLRACE_TRAINING_FOO_BAR. A shared setting is read from
 * there too, and from MILLRACE_FOO_BAR (LOG_LEVEL for `logLevel`) where that is not set, so that one environment can
 * start every service and still treat one of them differently.
 */

/** The services, each with the port it listens on where nothing else is said. */
export const servicePorts = {
  pipeline: 7400,
  ingestion: 7401,
  training: 7402,
  evaluation: 7403,
  prediction: 7404,
} as const;

export type ServiceName = keyof typeof servicePorts;

/**
 * Second words of variables that a service leaves alone: settings of the other services (who check their own), and of
 * the command, the tests (SHARED is a folder of data that they share) and the benchmarks.
 */
const owners: readonly string[] = [
  ...Object.keys(servicePorts).map((name) => name.toUpperCase()),
  "CLI",
  "TEST",
  "SHARED",
  "BENCH",
];

/** Variables whose name says that they hold a secret. */
const secretName = /(password|token|secret|credentials|nkey)$/i;

function sharedSettings(service: ServiceName) {
  return {
    natsUrl: z
      .string()
      // Without a scheme a later address has no credentials: what looks like them belongs to a password with a comma in it.
      .regex(/^(nats|tls):\/\/[^\s,]+(,((nats|tls):\/\/[^\s,]+|[^\s,/@]+\/?))*$/)
      .default("nats://127.0.0.1:4222")
      .describe(
        "the address of nats-server, such as nats://127.0.0.1:4222, or tls://nats:4222 for TLS; several are separated by commas",
      ),
    natsTraces: z
      .enum(["on", "off"])
      .default("off")
      .describe("on or off: whether nats-server, 2.11 or later, is asked for its own part in traces"),
    artifacts: z
      .string()
      .regex(/^(file:.+|nats:\S+)$/)
      .default("file:.millrace/artifacts")
      .describe("file:FOLDER or nats://BUCKET, where artifacts are kept"),
    host: z.string().default("127.0.0.1").describe("an address to listen on"),
    port: z.coerce
      .number()
      .int()
      .min(0)
      .max(65_535)
      .default(servicePorts[service])
      .describe("a port to listen on, 0 to 65535; 0 takes a free one"),
    accessToken: z
      .string()
      .regex(/^[\w.~+/=-]+(,[\w.~+/=-]+)*$/)
      .optional()
      .describe("what callers must send as a bearer token, without spaces; several are separated by commas"),
    tlsCertFile: z
      .string()
      .optional()
      .describe("a file with the certificate, in PEM, that the port shows; it then speaks TLS"),
    tlsKeyFile: z.string().optional().describe("a file with the certificate's key in PEM"),
    tlsClientCaFile: z
      .string()
      .optional()
      .describe(
        "a file with certificates, in PEM, of those who sign clients' certificates; every client must have one then",
      ),
    corsOrigins: z
      .string()
      .default("")
      .transform((list) => list.split(",").flatMap((origin) => origin.trim() || []))
      .describe("the origins of web pages that may call, separated by commas, such as https://console.example.org"),
    replicas: z.coerce
      .number()
      .int()
      .min(1)
      .max(5)
      .default(1)
      .describe("the number of copies that JetStream keeps of each stream, 1 to 5; at most the number of servers"),
    maxEventBytes: z.coerce
      .number()
      .int()
      .min(1024 ** 2)
      .default(1024 ** 3)
      .describe("the most bytes that the stream of events may hold, 1048576 or more"),
    ackWaitMs: z.coerce
      .number()
      .int()
      .min(1_000)
      .default(30_000)
      .describe(
        "milliseconds, 1000 or more, without a sign of life after which a stage's message goes to another instance",
      ),
    shutdownGraceMs: z.coerce
      .number()
      .int()
      .min(0)
      .default(10_000)
      .describe("the milliseconds that work under way may take to end when the service stops"),
    maxConnectionAgeMs: z.coerce
      .number()
      .int()
      .min(0)
      .max(24 * 60 * 60 * 1_000)
      .default(0)
      .describe("milliseconds after which HTTP/2 clients are asked to connect anew, 0 to 86400000; 0 for never"),
    engine: z
      .enum(["onnxruntime", "tensorflow"])
      .default("onnxruntime")
      .describe("onnxruntime, or tensorflow where the native library of @tensorflow/tfjs-node is installed"),
    instanceId: z
      .string()
      .regex(/^[\w.-]+$/)
      .default(`${hostname()}-${process.pid}`)
      .describe("name of this process among those of its service: letters, digits, dots, dashes"),
    traceDir: z.string().optional().describe("a folder for traces as OTLP JSON lines"),
    traceShare: z.coerce
      .number()
      .min(0)
      .max(1)
      .default(1)
      .describe("the share of requests whose trace is kept, 0 to 1; runs and failures are always kept"),
    logLevel: z
      .enum(logLevels)
      .default("info")
      .describe(`the least severe level that is written: ${logLevels.join(", ")}`),
  };
}

type SharedShape = ReturnType<typeof sharedSettings>;

/** What a service reads from its environment. Made by {@link defineConfig}. */
export interface ConfigSchema<Own extends z.ZodRawShape> {
  readonly service: ServiceName;
  readonly shared: z.ZodObject<SharedShape>;
  readonly own: z.ZodObject<Own>;
}

/** Settings of a service, checked and frozen. */
export type Config<Own extends z.ZodRawShape> = Readonly<z.infer<z.ZodObject<SharedShape>> & z.infer<z.ZodObject<Own>>>;

/**
 * The shared settings and a service's own. Give each setting a default, and with `.describe()` the words for "expected ...".
 *
 * @example defineConfig("training", { threads: z.coerce.number().int().min(1).default(2).describe("threads of the engine") })
 */
export function defineConfig<Own extends z.ZodRawShape>(service: ServiceName, own: Own): ConfigSchema<Own> {
  return { service, shared: z.object(sharedSettings(service)), own: z.object(own) };
}

/**
 * Reads and checks a service's settings. An empty variable counts as not set.
 *
 * @throws AppError CONFIGURATION_INVALID with one line for every problem, unknown MILLRACE_* variables included.
 */
export function loadConfig<Own extends z.ZodRawShape>(
  schema: ConfigSchema<Own>,
  env: NodeJS.ProcessEnv = process.env,
): Config<Own> {
  const variables = variablesOf(schema);
  const shared = readSettings(schema.shared, variables, env);
  const own = readSettings(schema.own, variables, env);
  const problems = [...shared.problems, ...own.problems, ...unknownVariables(schema.service, variables, env)];
  if (problems.length > 0) {
    throw new AppError(
      "CONFIGURATION_INVALID",
      `the ${schema.service} service cannot start:\n  ${problems.join("\n  ")}`,
    );
  }
  return Object.freeze({ ...shared.values, ...own.values }) as Config<Own>;
}

/** The settings for the log line at start: secrets and the credentials inside addresses are masked. */
export function describeConfig(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).map(([name, value]) => [name, masked(name, value)]));
}

function masked(name: string, value: unknown): unknown {
  if (typeof value !== "string") return value;
  return secretName.test(name) ? "***" : maskCredentials(value);
}

/** The text with "***" for the credentials inside addresses: `nats://user:password@host`, `nats://token@host`, `user:password@host`. */
export function maskCredentials(text: string): string {
  // Up to the last "@" of an address: a password that was not escaped may hold "@" and "/" too.
  return text.replaceAll(/:\/\/[^\s,/][^\s,]*@/g, "://***@").replaceAll(/[^\s,/:]+:(?!\/)[^\s,]+@/g, "***@");
}

/** Names of the variables of each setting; the first that is set counts. */
function variablesOf({ service, shared, own }: ConfigSchema<z.ZodRawShape>): ReadonlyMap<string, readonly string[]> {
  const ofService = (setting: string) => `MILLRACE_${service.toUpperCase()}_${upperSnake(setting)}`;
  const ofAll = (setting: string) => (setting === "logLevel" ? "LOG_LEVEL" : `MILLRACE_${upperSnake(setting)}`);
  return new Map<string, readonly string[]>([
    ...Object.keys(shared.shape).map((setting): [string, string[]] => [setting, [ofService(setting), ofAll(setting)]]),
    ...Object.keys(own.shape).map((setting): [string, string[]] => [setting, [ofService(setting)]]),
  ]);
}

function upperSnake(camelCase: string): string {
  return camelCase.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

function readSettings(
  schema: z.ZodObject,
  variables: ReadonlyMap<string, readonly string[]>,
  env: NodeJS.ProcessEnv,
): { readonly values: object; readonly problems: readonly string[] } {
  const problems: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [setting, type] of Object.entries(schema.shape)) {
    const names = variables.get(setting) ?? [];
    const variable = names.find((name) => env[name]) ?? names.at(-1) ?? "";
    const text = env[variable] || undefined;
    const result = z.safeParse(type, text);
    if (result.success) values[setting] = result.data;
    else problems.push(problemLine(variable, text, z.globalRegistry.get(type)?.description, result.error));
  }
  return { values, problems };
}

function problemLine(
  variable: string,
  text: string | undefined,
  expected: string | undefined,
  error: z.ZodError,
): string {
  // Nobody knows what is a password in an address that is none: all before the last "@" may be.
  const shown = (given: string) => (/_NATS_URL$/.test(variable) ? given.replace(/^.*@/s, "***@") : given);
  const given = text === undefined ? "is not set" : `is ${JSON.stringify(masked(variable, shown(text)))}`;
  return `${variable} ${given}; expected ${expected ?? error.issues.map((issue) => issue.message).join(", ")}`;
}

/** Lines for MILLRACE_* variables that neither this service nor another owner knows: most often a spelling mistake. */
function unknownVariables(
  service: ServiceName,
  variables: ReadonlyMap<string, readonly string[]>,
  env: NodeJS.ProcessEnv,
): string[] {
  const known = new Set([...variables.values()].flat());
  const own = service.toUpperCase();
  return Object.keys(env)
    .filter((name) => name.startsWith("MILLRACE_") && !known.has(name))
    .filter((name) => {
      const owner = name.split("_")[1] ?? "";
      return owner === own || !owners.includes(owner);
    })
    .map((name) => {
      const near = nearest(name, known);
      return `${name} is not a setting${near === undefined ? "; unset it" : `; did you mean ${near}?`}`;
    });
}

/** The known name that differs in at most a quarter of the letters after the prefix, or undefined. */
function nearest(name: string, known: Iterable<string>): string | undefined {
  const [best] = [...known]
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance);
  const limit = Math.max(1, (name.length - "MILLRACE_".length) / 4);
  return best !== undefined && best.distance <= limit ? best.candidate : undefined;
}
