import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { headers, type MsgHdrs } from "@nats-io/nats-core";
import { RunRequestedSchema } from "../../../gen/millrace/v1/events_pb.ts";
import {
  type CloudEventAttributes,
  decodeHeaderValue,
  encodeHeaderValue,
  eventFromMessage,
  eventIdFrom,
  headersFromEvent,
} from "../../../lib/bus/cloud-event.ts";
import { type Random, withSeed } from "../../helpers/bus.ts";

const attributes: CloudEventAttributes = {
  id: "id-1",
  source: "pipeline",
  type: "millrace.v1.RunRequested",
  time: new Date("2026-11-22T10:11:12.345Z"),
  correlationId: "r1",
  causationId: "",
  originTraceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
};
const data = toBinary(RunRequestedSchema, create(RunRequestedSchema, { spec: { modelName: "m" } }));
const message = (found: MsgHdrs | undefined) => ({
  subject: "millrace.v1.r1.run.requested",
  seq: 7,
  data,
  headers: found,
});

/** Any string: ASCII, controls, letters of many scripts, emoji and what must be escaped, but no half characters. */
function randomText(random: Random): string {
  const ranges = [
    [0, 0x20],
    [0x20, 0x7f],
    [0x22, 0x26],
    [0x80, 0x2ff],
    [0x4e00, 0x4f00],
    [0x1f600, 0x1f64f],
  ] as const;
  return Array.from({ length: random.below(40) }, () => {
    const [from, to] = ranges[random.below(ranges.length)] ?? [0x41, 0x5b];
    return String.fromCodePoint(from + random.below(to - from));
  }).join("");
}

suite("a header value", () => {
  test("is percent-encoded as the binding's examples are", () => {
    assert.equal(encodeHeaderValue("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
    assert.equal(encodeHeaderValue('100% "sure"'), "100%25%20%22sure%22");
    assert.equal(encodeHeaderValue("plain-!#$&'()*+,/:;<=>?@[]^`{|}~"), "plain-!#$&'()*+,/:;<=>?@[]^`{|}~");
  });

  test("is read whatever of it is encoded, and in either case of the digits", () => {
    assert.equal(decodeHeaderValue("Euro%20%e2%82%aC"), "Euro €");
    assert.equal(decodeHeaderValue("%41%62c"), "Abc");
    assert.equal(
      decodeHeaderValue("50% of %zz%"),
      "50% of %zz%",
      "a percent sign that begins no escape stands for itself",
    );
    assert.equal(decodeHeaderValue("€"), "€");
    assert.equal(decodeHeaderValue("%ff"), "\ufffd");
  });

  test("survives encoding, a header block and decoding, for any text", () =>
    withSeed((random) => {
      for (let round = 0; round < 2_000; round++) {
        const text = randomText(random);
        const encoded = encodeHeaderValue(text);
        assert.match(encoded, /^[\x21-\x7e]*$/);
        assert.ok(!encoded.includes('"'));
        assert.equal(decodeHeaderValue(encoded), text);
      }
    }));
});

suite("an event", () => {
  test("carries the attributes of CloudEvents 1.0, each in a header", () => {
    const written = headersFromEvent(attributes);
    const found = Object.fromEntries(written.keys().map((key) => [key, written.get(key)]));
    assert.deepEqual(found, {
      "ce-specversion": "1.0",
      "ce-id": "id-1",
      "ce-source": "pipeline",
      "ce-type": "millrace.v1.RunRequested",
      "ce-time": "2026-11-22T10:11:12.345Z",
      "ce-datacontenttype": "application/protobuf",
      "ce-correlationid": "r1",
      "ce-traceparent": attributes.originTraceparent,
    });
  });

  test("is read back as it was written, whatever its attributes hold", () =>
    withSeed((random) => {
      for (let round = 0; round < 200; round++) {
        const text = () => `x${randomText(random)}`;
        const event = { ...attributes, id: text(), source: text(), correlationId: text(), causationId: text() };
        const {
          message: payload,
          sequence,
          subject,
          headers: _,
          ...read
        } = eventFromMessage(message(headersFromEvent(event)));
        assert.deepEqual(read, event);
        assert.deepEqual([payload.$typeName, sequence, subject], [event.type, 7, "millrace.v1.r1.run.requested"]);
      }
    }));

  test("of another publisher may spell its headers in other cases and leave out the time", () => {
    const other = headers();
    const written = { "CE-ID": "1", "Ce-Source": "x", "ce-Type": attributes.type, "Ce-Specversion": "1.0" };
    for (const [name, value] of Object.entries(written)) other.set(name, value);
    const stored = new Date("2026-01-02T03:04:05Z");
    const event = eventFromMessage({ ...message(other), time: stored });
    assert.deepEqual([event.id, event.time, event.correlationId], ["1", stored, ""]);
  });

  test("is refused with what is wrong with it", () => {
    const without = (name: string, value?: string) => {
      const written = headersFromEvent(attributes);
      if (value === undefined) written.delete(name);
      else written.set(name, value);
      return () => eventFromMessage(message(written));
    };
    const code = "EVENT_INVALID";
    assert.throws(() => eventFromMessage(message(undefined)), {
      code,
      message: /7 on millrace\.v1\.r1\.run\.requested/,
    });
    for (const name of ["id", "source", "type", "specversion"]) {
      assert.throws(without(`ce-${name}`), { code, message: new RegExp(`it has no ce-${name}`) });
    }
    assert.throws(without("ce-specversion", "0.3"), { code, message: /CloudEvents 0\.3/ });
    assert.throws(without("ce-time", "yesterday"), { code, message: /"yesterday" as ce-time/ });
    assert.throws(without("ce-type", "millrace.v1.Unheard"), {
      code,
      message: /"millrace\.v1\.Unheard" is not an event/,
    });
    const garbled = { ...message(headersFromEvent(attributes)), data: new Uint8Array([0xff]) };
    assert.throws(() => eventFromMessage(garbled), { code, message: /no millrace\.v1\.RunRequested/ });
  });
});

test("an id depends on the cause, the event and the key, and on nothing else", () => {
  const id = eventIdFrom("c", "run.requested", "1");
  assert.match(id, /^[0-9a-f]{32}$/);
  assert.equal(id, eventIdFrom("c", "run.requested", "1"));
  const others = [
    eventIdFrom("d", "run.requested", "1"),
    eventIdFrom("c", "run.failed", "1"),
    eventIdFrom("c", "run.requested", "2"),
    eventIdFrom("c", "run.requested"),
  ];
  assert.equal(new Set([id, ...others]).size, 5);
});
