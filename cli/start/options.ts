import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { AppError } from "../../lib/errors.ts";

export interface StartOptions {
  /** "pictograms", "cifar10" or an absolute path. */
  readonly dataset: string;
  readonly network: string | undefined;
  readonly epochs: number | undefined;
  readonly seed: number | undefined;
  /** Images per class; 0 is all. */
  readonly limit: number;
  readonly minimumAccuracy: number | undefined;
  /** End after the run instead of staying up. */
  readonly exit: boolean;
  /** Absolute path of the folder that keeps everything. */
  readonly home: string;
}

export const startUsage = `Usage: npm start -- [options]

Runs the whole pipeline on this machine: broker, five services, one run, three predictions.

  --dataset SOURCE        pictograms (default), cifar10, or the path of a folder, .tar, .tar.gz or .zip of images,
                          one folder per class
  --network NAME          small (default) or paper
  --epochs N              passes over the training images; default: the network's own
  --seed N                seed of data set and training, 0 to 4294967295; default: 0
  --limit N               at most N images of each class
  --minimum-accuracy X    accuracy, 0 to 1, that a model must reach to go live; default: 0.5
  --home FOLDER           where broker, artifacts, traces and logs are kept; default: .millrace
  --exit                  end after the predictions, with status 0 if all went well
  --help                  this text

A later start finds the earlier runs and their model again. Deleting the folder forgets it all.
`;

const builtIn = ["pictograms", "cifar10"];

/** Where the person is: npm runs scripts in the package's folder, and tells in INIT_CWD where it was called. */
const calledFrom = process.env.INIT_CWD ?? process.cwd();

/** Reads the command line; undefined where only help was asked for. INVALID_REQUEST names the option that is wrong. */
export function parseStartOptions(args: string[]): StartOptions | undefined {
  const values = parse(args);
  if (values.help) return undefined;
  return {
    dataset: sourceFrom(values.dataset),
    network: values.network,
    epochs: integer("epochs", values.epochs, 1, 10_000),
    seed: integer("seed", values.seed, 0, 2 ** 32 - 1),
    limit: integer("limit", values.limit, 1, 10_000_000) ?? 0,
    minimumAccuracy: share("minimum-accuracy", values["minimum-accuracy"]),
    exit: values.exit,
    home: values.home === undefined ? resolve(".millrace") : resolve(calledFrom, values.home),
  };
}

function parse(args: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean", default: false } as const;
  try {
    return parseArgs({
      args,
      options: {
        dataset: { type: "string", default: "pictograms" },
        network: text,
        epochs: text,
        seed: text,
        limit: text,
        "minimum-accuracy": text,
        home: text,
        exit: flag,
        help: flag,
      },
    }).values;
  } catch (thrown) {
    throw new AppError("INVALID_REQUEST", `${AppError.from(thrown).message}\n\n${startUsage}`);
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

function share(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (value >= 0 && value <= 1 && text.trim() !== "") return value;
  throw new AppError("INVALID_REQUEST", `--${name} ${text}: expected a number from 0 to 1`);
}
