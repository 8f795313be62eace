import { AppError } from "../errors.ts";

/**
 * Names on the broker. A run, a topic or one kind of event is one filter:
 * `millrace.v1.<run id>.>`, `millrace.v1.*.model.>`, `millrace.v1.*.model.trained`.
 */

/** The log of everything that happens in runs. */
export const eventStream = "MILLRACE_EVENTS";
/** The log of models, their versions and aliases: the registry is its replay. */
export const registryStream = "MILLRACE_REGISTRY";
/** Messages that a stage gave up on, with the reason. */
export const deadLetterStream = "MILLRACE_DEAD_LETTERS";

/** What was answered, what the images really were, and whether they still resemble the data set. The oldest make room for new ones. */
export const predictionStream = "MILLRACE_PREDICTIONS";

/** Subjects that each stream stores. */
export const streamSubjects = {
  [eventStream]: "millrace.v1.>",
  [registryStream]: "millrace.registry.v1.*",
  [deadLetterStream]: "millrace.dead.v1.>",
  [predictionStream]: "millrace.predictions.v1.>",
} as const;

/** Subject of an event of a run. `eventName` is "<topic>.<event>"; `"*"` as the run id filters over all runs. */
export function eventSubject(runId: string, eventName: string): string {
  return `millrace.v1.${runId}.${eventName}`;
}

/** The run that a subject of the log of runs belongs to. */
export function runIdFromSubject(subject: string): string {
  return subject.split(".")[2] ?? "";
}

/**
 * Refuses a name that is no single token of a subject: a dot would put the event on another subject, and a wildcard is
 * stored by the server like any other character.
 */
export function requireToken(what: string, value: string): void {
  if (isToken(value)) return;
  throw new AppError("INVALID_REQUEST", `"${value}" is no ${what}; use 1 to 128 letters, digits, "-" and "_"`, {
    details: { [what.replaceAll(" ", "_")]: value },
  });
}

/** Whether it can be an id of ours in a subject. */
export function isToken(value: string): boolean {
  return /^[A-Za-z0-9_-]{1,128}$/.test(value);
}

/** Every event of a run. */
export function runFilter(runId: string): string {
  return `millrace.v1.${runId}.>`;
}

/** Subject of all changes to one model: one subject, so that the broker itself can compare and set. */
export function registrySubject(modelName: string): string {
  return `millrace.registry.v1.${modelName}`;
}

/** Subject of an event about the predictions of a model. `eventName` is "<topic>.<event>", of which the topic is always "prediction". */
export function predictionSubject(modelName: string, eventName: string): string {
  return `millrace.predictions.v1.${modelName}.${eventName.split(".").at(-1)}`;
}

/** Subject under which a stage keeps what it gave up on. */
export function deadLetterSubject(stage: string, runId: string): string {
  return `millrace.dead.v1.${stage}.${runId}`;
}
