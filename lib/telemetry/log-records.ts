import { type AnyValueMap, logs, SeverityNumber } from "@opentelemetry/api-logs";

/** OpenTelemetry's number for each level that a line can have. */
const severities: Readonly<Record<string, SeverityNumber>> = {
  trace: SeverityNumber.TRACE,
  debug: SeverityNumber.DEBUG,
  info: SeverityNumber.INFO,
  warn: SeverityNumber.WARN,
  error: SeverityNumber.ERROR,
  fatal: SeverityNumber.FATAL,
};

/** What has a place of its own in a log record, or is an attribute of the process. */
interface LineHead {
  readonly time: string;
  readonly level: string;
  readonly event?: string;
  readonly message?: string;
  readonly service: string;
  readonly pid: number;
  readonly trace_id?: string;
  readonly span_id?: string;
}

/**
 * A destination for a logger that hands each line on as an OpenTelemetry log record: the message is its body, the event
 * its name, and all that the line says beside is an attribute of the same name. Lines are written while the work that
 * they are about is active, so the record's trace and span are those of the line.
 */
export function createLogRecordStream(): { write(line: string): void } {
  const logger = logs.getLogger("millrace");
  return {
    write(line) {
      const { time, level, event, message, service, pid, trace_id, span_id, ...attributes } = JSON.parse(
        line,
      ) as LineHead & AnyValueMap;
      logger.emit({
        timestamp: Date.parse(time),
        severityNumber: severities[level] ?? SeverityNumber.UNSPECIFIED,
        severityText: level,
        attributes,
        ...(event !== undefined && { eventName: event }),
        ...(message !== undefined && { body: message }),
      });
    },
  };
}
