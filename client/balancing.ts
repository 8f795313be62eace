import { Code, ConnectError, type StreamResponse } from "@connectrpc/connect";
import type { RpcSystem, Send } from "./call.ts";

/** How long an address is left out after its first failure; each further one doubles it. */
const firstAbsenceMs = 1_000;
const longestAbsenceMs = 30_000;

/** A server that may be called. */
export interface Address {
  readonly baseUrl: string;
  readonly rpcSystem: RpcSystem;
  readonly send: Send;
}

interface Member extends Address {
  /** In a row. */
  failures: number;
  /** When it may be called again, by the monotonic clock. */
  backAtMs: number;
}

/**
 * Calls addresses in turn. One that is UNAVAILABLE is left out for a time that grows while it stays so; when
 * all are left out, the one that comes back first is called: no call fails for want of trying. There must be at least one.
 */
export function balanceCalls(addresses: readonly Address[]): Send {
  const members = addresses.map((address): Member => ({ ...address, failures: 0, backAtMs: 0 }));
  let turn = 0;
  return async (call) => {
    const member = choose(members, turn++);
    call.onTry?.(member);
    try {
      const response = await member.send(call);
      // A stream in both directions is there before the server is: its first message shows whether that answers.
      if (response.stream) return { ...response, message: watch(response.message, member) };
      member.failures = 0;
      return response;
    } catch (error) {
      noteFailure(member, error);
      throw error;
    }
  };
}

async function* watch(messages: StreamResponse["message"], member: Member): StreamResponse["message"] {
  try {
    for await (const message of messages) {
      member.failures = 0;
      yield message;
    }
  } catch (error) {
    noteFailure(member, error);
    throw error;
  }
}

function noteFailure(member: Member, error: unknown): void {
  if (ConnectError.from(error).code === Code.Unavailable) leaveOut(member);
}

function choose(members: readonly Member[], turn: number): Member {
  const nowMs = performance.now();
  const present = members.filter(({ backAtMs }) => backAtMs <= nowMs);
  return present[turn % present.length] ?? members.reduce((a, b) => (b.backAtMs < a.backAtMs ? b : a));
}

function leaveOut(member: Member): void {
  const nowMs = performance.now();
  // Calls that were under way together fail together: that is one failure.
  if (member.backAtMs > nowMs) return;
  member.backAtMs = nowMs + Math.min(longestAbsenceMs, firstAbsenceMs * 2 ** member.failures);
  member.failures++;
}
