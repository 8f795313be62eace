import {
  DiscardPolicy,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
} from "@nats-io/jetstream";
import { nanos } from "@nats-io/nats-core";
import { isApiError } from "./broker-errors.ts";
import { deadLetterStream, eventStream, predictionStream, registryStream, streamSubjects } from "./subjects.ts";

const days = (n: number) => nanos(n * 24 * 60 * 60 * 1000);

export interface TopologyOptions {
  /** Servers that keep each message. Default: 1; 3 on a cluster. */
  readonly replicas?: number;
  /** Most bytes that the log of runs may hold; publishing into a full stream is an error, never a silent loss. Default: 1 GiB. */
  readonly maxEventBytes?: number;
}

/**
 * How long a repeated publication is recognised by its id. It exceeds the longest retry schedule of a stage; beyond it,
 * a stage still recognises finished work by the outcome in the stream.
 */
const duplicateWindowMs = 60 * 60 * 1000;

function streamConfigs({ replicas = 1, maxEventBytes = 1024 ** 3 }: TopologyOptions): Partial<StreamConfig>[] {
  const common = {
    storage: StorageType.File,
    retention: RetentionPolicy.Limits,
    // A full stream must refuse: discarding the oldest would drop events that no stage has read yet.
    discard: DiscardPolicy.New,
    num_replicas: replicas,
    duplicate_window: nanos(duplicateWindowMs),
    deny_delete: false,
  };
  const stream = (name: keyof typeof streamSubjects, limits: Partial<StreamConfig>) => ({
    ...common,
    ...limits,
    name,
    subjects: [streamSubjects[name]],
  });
  return [
    stream(eventStream, { max_age: days(90), max_bytes: maxEventBytes }),
    // What was live, and when, is worth keeping for good.
    stream(registryStream, { max_age: 0, max_bytes: -1 }),
    // Many, and none that work waits for.
    stream(predictionStream, { max_age: days(7), max_bytes: 256 * 1024 ** 2, discard: DiscardPolicy.Old }),
    stream(deadLetterStream, { max_age: days(30), max_bytes: 256 * 1024 ** 2, discard: DiscardPolicy.Old }),
  ];
}

/**
 * Creates the streams, or updates them to the wanted limits. Limits that are wider, because an operator raised them or
 * another service was given more, stay. Safe to call from every service at once.
 */
export async function ensureTopology(jsm: JetStreamManager, options: TopologyOptions = {}): Promise<void> {
  for (const config of streamConfigs(options)) await ensureStream(jsm, config as StreamConfig);
}

/** "stream name already in use with a different configuration" */
const nameInUse = 10058;

async function ensureStream(jsm: JetStreamManager, config: StreamConfig): Promise<void> {
  try {
    // Adding a stream that exists with the same configuration succeeds.
    await jsm.streams.add(config);
  } catch (thrown) {
    if (!isApiError(thrown, nameInUse)) throw thrown;
    const { config: found } = await jsm.streams.info(config.name);
    const max_age = looser(found.max_age, config.max_age);
    const max_bytes = looser(found.max_bytes, config.max_bytes);
    const num_replicas = Math.max(found.num_replicas, config.num_replicas);
    await jsm.streams.update(config.name, { ...config, max_age, max_bytes, num_replicas });
  }
}

/** The larger of two limits; 0 and -1 stand for none. */
function looser(a: number, b: number): number {
  return Math.min(a, b) <= 0 ? Math.min(a, b) : Math.max(a, b);
}
