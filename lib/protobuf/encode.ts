/**
 * Messages to bytes, for answers and events. It writes what toBinary writes, which asks the descriptor of every field anew for every message: here a
 * type is looked at once, and nothing is made on the way but the bytes.
 */
import { type DescField, type DescMessage, type Message, ScalarType, toBinary } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { Edition, FeatureSet_FieldPresence as Presence } from "@bufbuild/protobuf/wkt";
import { type BackwardsWriter, createBackwardsWriter } from "./backwards-writer.ts";

type Fields = Readonly<Record<string, unknown>>;
type Write<Value> = (out: BackwardsWriter, value: Value) => void;

/** How values are written, without the number of their field. */
interface ValueKind {
  readonly wireType: WireType;
  readonly write: Write<unknown>;
}

const writer = createBackwardsWriter();
const types = new Map<DescMessage, Write<Fields> | undefined>();

/** The bytes of a message, after `room` bytes that are 0. Throws for values that a field cannot have. */
export function encode(desc: DescMessage, message: Message, room = 0): Buffer {
  const write = writeOf(desc);
  if (write === undefined) return Buffer.concat([Buffer.alloc(room), toBinary(desc, message)]);
  writer.reset();
  write(writer, message as unknown as Fields);
  return writer.finish(room);
}

/** Undefined for a type with something in it that no message of ours has; toBinary writes all that there is. */
function writeOf(desc: DescMessage): Write<Fields> | undefined {
  if (types.has(desc)) return types.get(desc);
  // Until it is known, for a type that has itself for a field.
  types.set(desc, (out, fields) => types.get(desc)?.(out, fields));
  // Backwards, so the last comes first.
  const writes = desc.fields.toSorted((a, b) => b.number - a.number).map(writeOfField);
  const known = writes.filter((write) => write !== undefined);
  const isKnown = known.length === writes.length && desc.file.edition === Edition.EDITION_PROTO3;
  const writeAll: Write<Fields> = (out, fields) => {
    writeUnknown(out, fields);
    for (const write of known) write(out, fields);
  };
  types.set(desc, isKnown ? writeAll : undefined);
  return types.get(desc);
}

/** What came in under numbers that the contract does not have goes out again, at the end. */
function writeUnknown(out: BackwardsWriter, { $unknown = [] }: Fields): void {
  for (const { no, wireType, data } of ($unknown as NonNullable<Message["$unknown"]>).toReversed()) {
    out.raw(data);
    out.varint(tagOf(no, wireType));
  }
}

function writeOfField(field: DescField): Write<Fields> | undefined {
  const { localName, number, fieldKind, presence } = field;
  const kind = kindOf(field);
  if (kind === undefined || ("delimitedEncoding" in field && field.delimitedEncoding)) return undefined;
  const tag = tagOf(number, kind.wireType);
  const write: Write<unknown> = (out, value) => {
    kind.write(out, value);
    out.varint(tag);
  };
  if (fieldKind === "list") return writeOfList(field, kind, write);
  if (fieldKind === "map") return field.mapKey === ScalarType.STRING ? writeOfMap(field, kind) : undefined;
  if (field.oneof !== undefined) {
    const group = field.oneof.localName;
    return (out, fields) => {
      const chosen = fields[group] as { readonly case?: string; readonly value?: unknown };
      if (chosen.case === localName) write(out, chosen.value);
    };
  }
  const isImplicit = presence === Presence.IMPLICIT;
  const isFloat = field.scalar === ScalarType.DOUBLE || field.scalar === ScalarType.FLOAT;
  const isDefault = isFloat ? isPlusZero : isZero;
  return (out, fields) => {
    const value = fields[localName];
    if (value !== undefined && !(isImplicit && isDefault(value))) write(out, value);
  };
}

/** Minus zero is another number. */
const isPlusZero = (value: unknown): boolean => Object.is(value, 0);

function isZero(value: unknown): boolean {
  if (value instanceof Uint8Array) return value.length === 0;
  return value === 0 || value === 0n || value === false || value === "";
}

function writeOfList(
  { localName, number, packed }: Extract<DescField, { fieldKind: "list" }>,
  kind: ValueKind,
  write: Write<unknown>,
): Write<Fields> {
  const packedTag = tagOf(number, WireType.LengthDelimited);
  return (out, fields) => {
    const values = fields[localName] as readonly unknown[];
    const before = out.length;
    for (let index = values.length - 1; index >= 0; index--) {
      if (packed) kind.write(out, values[index]);
      else write(out, values[index]);
    }
    if (!packed || values.length === 0) return;
    out.varint(out.length - before);
    out.varint(packedTag);
  };
}

/** Each entry is a message of two fields. */
function writeOfMap({ localName, number }: DescField, kind: ValueKind): Write<Fields> {
  const [keyTag, valueTag] = [tagOf(1, WireType.LengthDelimited), tagOf(2, kind.wireType)];
  const entryTag = tagOf(number, WireType.LengthDelimited);
  return (out, fields) => {
    for (const [key, value] of Object.entries(fields[localName] as object).toReversed()) {
      const before = out.length;
      kind.write(out, value);
      out.varint(valueTag);
      writeText(out, key);
      out.varint(keyTag);
      out.varint(out.length - before);
      out.varint(entryTag);
    }
  };
}

function kindOf(field: DescField): ValueKind | undefined {
  if (field.message !== undefined) {
    // Wrappers and Struct stand in a message as plain values.
    if (field.message.typeName.startsWith("google.protobuf.") && !plainTypes.has(field.message.typeName))
      return undefined;
    const write = writeOf(field.message);
    return write && delimited(write as Write<unknown>);
  }
  if ("longAsString" in field && field.longAsString) return undefined;
  return scalarKinds[field.scalar ?? ScalarType.INT32];
}

const plainTypes: ReadonlySet<string> = new Set(
  ["Any", "Timestamp", "Duration"].map((name) => `google.protobuf.${name}`),
);

/** Values with their length before them. */
function delimited(write: Write<unknown>): ValueKind {
  return {
    wireType: WireType.LengthDelimited,
    write(out, value) {
      const before = out.length;
      write(out, value);
      out.varint(out.length - before);
    },
  };
}

function kind<Value>(wireType: WireType, isValid: (value: Value) => boolean, write: Write<Value>): ValueKind {
  return {
    wireType,
    write(out, value) {
      if (!isValid(value as Value)) throw new TypeError(`${String(value)} is no value for its field`);
      write(out, value as Value);
    },
  };
}

const isNumber = (value: number): boolean => typeof value === "number";
const isBigint = (value: bigint): boolean => typeof value === "bigint";
const isInt32 = (value: number): boolean => value === (value | 0);
const isUint32 = (value: number): boolean => value === value >>> 0;
const zigzag64 = (value: bigint): bigint => (value << 1n) ^ (value >> 63n);
const { Varint, Bit32, Bit64 } = WireType;

function writeText(out: BackwardsWriter, value: string): void {
  const before = out.length;
  out.text(value);
  out.varint(out.length - before);
}

const scalarKinds: Readonly<Record<ScalarType, ValueKind>> = {
  [ScalarType.DOUBLE]: kind(Bit64, isNumber, (out, value) => out.double(value)),
  [ScalarType.FLOAT]: kind(Bit32, isNumber, (out, value) => out.float(value)),
  [ScalarType.INT32]: kind(Varint, isInt32, (out, value) =>
    value < 0 ? out.varint64(BigInt(value)) : out.varint(value),
  ),
  [ScalarType.UINT32]: kind(Varint, isUint32, (out, value) => out.varint(value)),
  [ScalarType.SINT32]: kind(Varint, isInt32, (out, value) => out.varint(((value << 1) ^ (value >> 31)) >>> 0)),
  [ScalarType.FIXED32]: kind(Bit32, isUint32, (out, value) => out.fixed32(value)),
  [ScalarType.SFIXED32]: kind(Bit32, isInt32, (out, value) => out.fixed32(value)),
  [ScalarType.INT64]: kind(Varint, isBigint, (out, value) => out.varint64(value)),
  [ScalarType.UINT64]: kind(Varint, isBigint, (out, value) => out.varint64(value)),
  [ScalarType.SINT64]: kind(Varint, isBigint, (out, value) => out.varint64(zigzag64(value))),
  [ScalarType.FIXED64]: kind(Bit64, isBigint, (out, value) => out.fixed64(value)),
  [ScalarType.SFIXED64]: kind(Bit64, isBigint, (out, value) => out.fixed64(value)),
  [ScalarType.BOOL]: kind(
    Varint,
    (value) => typeof value === "boolean",
    (out, value) => out.varint(value ? 1 : 0),
  ),
  [ScalarType.STRING]: {
    wireType: WireType.LengthDelimited,
    write: (out, value) => writeText(out, value as string),
  },
  [ScalarType.BYTES]: delimited((out, value) => out.raw(value as Uint8Array)),
};

function tagOf(number: number, wireType: WireType): number {
  return number * 8 + wireType;
}
