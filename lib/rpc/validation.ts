/** Requests against the rules that their contracts declare (protovalidate). */
import type { DescMessage, Message } from "@bufbuild/protobuf";
import { createValidator, violationsToProto } from "@bufbuild/protovalidate";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";

/** Throws INVALID_ARGUMENT, with `buf.validate.Violations` as detail, for a message that breaks a rule of its contract. */
export type MessageCheck = (contract: DescMessage, message: Message) => void;

export function createMessageCheck(): MessageCheck {
  const validator = createValidator();
  return (contract, message) => {
    const { kind, error, violations } = validator.validate(contract, message);
    if (kind === "valid") return;
    const [value, desc] = violationsToProto(violations ?? []);
    throw new ConnectError(error.message, Code.InvalidArgument, undefined, [{ desc, value }], error);
  };
}

/** Checks each message that a client sends before the handler sees it. */
export function checkRequests(check: MessageCheck): Interceptor {
  return (next) => (request) => {
    if (request.stream) return next({ ...request, message: checked(request.message, request.method.input, check) });
    check(request.method.input, request.message);
    return next(request);
  };
}

async function* checked<T extends Message>(
  messages: AsyncIterable<T>,
  contract: DescMessage,
  check: MessageCheck,
): AsyncGenerator<T> {
  for await (const message of messages) {
    check(contract, message);
    yield message;
  }
}
