import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { AppError } from "../../lib/errors.ts";
import { calledFrom } from "../called-from.ts";

export interface StartOptions {
  /** "pictograms", "cifar10" or an absolute path. */
  readonly dataset: string;
  readonly network: string | undefined;
  readonly epochs: number | undefined;
  readonly seed: number | undefined;
  /** Those of the training that were asked for. */
  readonly hyperparameters: JsonObject;
  /** Images per class; 0 is all. */
  readonly limit: number;
  readonly minimumAccuracy: number | undefined;
  /** End after the run instead of staying up. */
  readonly exit: boolean;
  /** Absolute path of the folder that keeps everything. */
  readonly home: string;
}

/** The text of --help. Asynchronous since the networks bring TensorFlow.js along, which no start but this one shall wait for. */
export async function startUsage(): Promise<string> {
  const { networks } = await import("../../lib/nn/networks.ts");
  const { defaultNetwork } = await import("../../lib/nn/config-from-spec.ts");
  const names = networks.map(({ name }) => (name === defaultNetwork ? `${name} (default)` : name));
  return usageWith(`${names.slice(0, -1).join(", ")} or ${names.at(-1)}`);
}

const usageWith = (networkNames: string) => `Usage: npm start -- [options]

Runs the whole pipeline on this machine: broker, five services, one run, three predictions.

  --dataset SOURCE        pictograms (default), cifar10, or the path of a folder, .tar, .tar.gz or .zip of images,
                          one folder per class
  --network NAME          ${networkNames}
  --epochs N              passes over the training images; default: the network's own
  --batch-size N          images a step; default: the network's own
  --learning-rate X       highest learning rate; default: the network's own
  --validation-share X    part of the training images, 0 to below 1, to measure each epoch on instead; default: 0
  --max-minutes X         minutes after which no step of the training begins, its schedule finished; the last step,
                          validation and packing come on top; default: no limit
  --set JSON              any other hyper-parameters, such as '{"schedule":{"kind":"cosine"}}'; docs/training.md lists them
  --seed N                seed of data set and training, 0 to 4294967295; default: 0 for the data set, 1 for the training
  --limit N               at most N images of each class
  --minimum-accuracy X    accuracy, 0 to 1, that a model must reach to go live; default: 0.5
  --home FOLDER           where broker, artifacts, traces and logs are kept; default: .millrace
  --exit                  end after the predictions, with status 0 if all went well
  --help                  this text

A later start finds the earlier runs and their model again. Deleting the folder forgets it all.
`;

const builtIn = ["pictograms", "cifar10"];

/** Reads the command line; undefined where only help was asked for. INVALID_REQUEST names the option that is wrong. */
export async function parseStartOptions(args: string[]): Promise<StartOptions | undefined> {
  const values = await parse(args);
  if (values.help) return undefined;
  return {
    dataset: sourceFrom(values.dataset),
    network: values.network,
    epochs: integer("epochs", values.epochs, 1, 10_000),
    hyperparameters: hyperparametersFrom(values),
    seed: integer("seed", values.seed, 0, 2 ** 32 - 1),
    limit: integer("limit", values.limit, 1, 10_000_000) ?? 0,
    minimumAccuracy: decimal("minimum-accuracy", values["minimum-accuracy"], share),
    exit: values.exit,
    home: values.home === undefined ? resolve(".millrace") : resolve(calledFrom, values.home),
  };
}

async function parse(args: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  try {
    return parseArgs({
      args,
      options: {
        dataset: { type: "string", default: "pictograms" },
        network: text,
        epochs: text,
        "batch-size": text,
        "learning-rate": text,
        "validation-share": text,
        "max-minutes": text,
        set: text,
        seed: text,
        limit: text,
        "minimum-accuracy": text,
        home: text,
        exit: flag,
        help: flag,
      },
    }).values;
  } catch (thrown) {
    throw new AppError("INVALID_REQUEST", `${AppError.from(thrown).message}\n\n${await startUsage()}`);
  }
}

/** A path as the services will find it, whatever folder they run in. Their own message for what is wrong inside is better than one from here. */
function sourceFrom(dataset: string): string {
  if (builtIn.includes(dataset)) return dataset;
  const path = resolve(calledFrom, dataset);
  if (existsSync(path)) return path;
  throw new AppError(
    "INVALID_REQUEST",
    `--dataset ${dataset}: there is no such file or folder, and no built-in data set of that name (${builtIn.join(", ")})`,
  );
}

function integer(name: string, text: string | undefined, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (Number.isInteger(value) && value >= least && value <= most && text.trim() !== "") return value;
  throw new AppError("INVALID_REQUEST", `--${name} ${text}: expected a whole number from ${least} to ${most}`);
}

interface Range {
  readonly words: string;
  readonly holds: (value: number) => boolean;
}

const positive: Range = { words: "of at least 0", holds: (value) => value >= 0 && Number.isFinite(value) };
const share: Range = { words: "from 0 to 1", holds: (value) => value >= 0 && value <= 1 };
const part: Range = { words: "from 0 to below 1", holds: (value) => value >= 0 && value < 1 };

function decimal(name: string, text: string | undefined, { words, holds }: Range): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (holds(value) && text.trim() !== "") return value;
  throw new AppError("INVALID_REQUEST", `--${name} ${text}: expected a number ${words}`);
}

/** What the training's own check can say better, such as that a learning rate must not be 0, is left to it. */
function hyperparametersFrom(values: Awaited<ReturnType<typeof parse>>): JsonObject {
  const batchSize = integer("batch-size", values["batch-size"], 1, 1_000_000);
  const learningRate = decimal("learning-rate", values["learning-rate"], positive);
  const validationShare = decimal("validation-share", values["validation-share"], part);
  const maxMinutes = decimal("max-minutes", values["max-minutes"], positive);
  const { optimizer = {}, ...others } = jsonObject("set", values.set);
  if (!isObject(optimizer)) throw new AppError("INVALID_REQUEST", "--set: optimizer must be an object");
  const asked = { ...optimizer, ...(learningRate === undefined ? {} : { learningRate }) };
  return {
    ...others,
    ...(Object.keys(asked).length === 0 ? {} : { optimizer: asked }),
    ...(batchSize === undefined ? {} : { batchSize }),
    ...(validationShare === undefined ? {} : { validationShare }),
    ...(maxMinutes === undefined ? {} : { maxMinutes }),
  };
}

function jsonObject(name: string, text: string | undefined): JsonObject {
  if (text === undefined) return {};
  try {
    const value: JsonValue = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {
    // Said below, as for JSON that is something else.
  }
  throw new AppError("INVALID_REQUEST", `--${name} ${text}: expected a JSON object`);
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
