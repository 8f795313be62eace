import { type DescMessage, getOption, hasOption, type Message } from "@bufbuild/protobuf";
import { file_millrace_v1_events } from "../../gen/millrace/v1/events_pb.ts";
import { type EventOptions, event as eventOption } from "../../gen/millrace/v1/options_pb.ts";
import { AppError } from "../errors.ts";

/** An event as events.proto declares it. */
export interface EventType {
  readonly schema: DescMessage;
  /** How it travels: its name on the subject, who publishes and who consumes it. */
  readonly options: EventOptions;
}

/** Every event, by the full name of its message, which is the CloudEvents type. */
export const eventTypes: ReadonlyMap<string, EventType> = new Map(
  file_millrace_v1_events.messages
    .filter((schema) => hasOption(schema, eventOption))
    .map((schema) => [schema.typeName, { schema, options: getOption(schema, eventOption) }]),
);

/** The declaration of an event; EVENT_INVALID if the message is none. */
export function eventTypeOf(subject: Message | DescMessage | string): EventType {
  const typeName = typeof subject === "string" ? subject : "typeName" in subject ? subject.typeName : subject.$typeName;
  const type = eventTypes.get(typeName);
  if (type === undefined) {
    throw new AppError(
      "EVENT_INVALID",
      `"${typeName}" is not an event; events are declared in proto/millrace/v1/events.proto`,
      {
        details: { type: typeName },
      },
    );
  }
  return type;
}
