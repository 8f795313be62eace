import { type DescEnum, type DescExtension, type DescFile, type DescMessage, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

/** Files of Protobuf descriptors, found by what a reflection client asks for. */
export interface DescriptorIndex {
  fileByName(name: string): DescFile | undefined;
  /** The file that defines a service, method, message, field, oneof, enum, enum value or extension, by full name. */
  fileOfSymbol(symbol: string): DescFile | undefined;
  fileOfExtension(messageType: string, fieldNumber: number): DescFile | undefined;
  /** Field numbers of the known extensions of a message. */
  extensionNumbers(messageType: string): number[];
  /** A file and everything that it imports, serialised, the file first, without those whose names are in `known`, which grows. */
  withImports(file: DescFile, known: Set<string>): Uint8Array[];
}

/** Indexes files and all that they import. */
export function createDescriptorIndex(roots: Iterable<DescFile>): DescriptorIndex {
  const files = new Map<string, DescFile>();
  for (const root of roots) collect(root, files);
  const symbols = new Map<string, DescFile>();
  const extensions = new Map<string, Map<number, DescFile>>();
  for (const file of files.values()) {
    for (const symbol of symbolsOf(file)) symbols.set(symbol, file);
    for (const extension of extensionsOf(file)) {
      const numbers = extensions.get(extension.extendee.typeName) ?? new Map<number, DescFile>();
      extensions.set(extension.extendee.typeName, numbers.set(extension.number, file));
    }
  }
  return {
    fileByName: (name) => files.get(name),
    fileOfSymbol: (symbol) => symbols.get(symbol),
    fileOfExtension: (messageType, fieldNumber) => extensions.get(messageType)?.get(fieldNumber),
    extensionNumbers: (messageType) => [...(extensions.get(messageType)?.keys() ?? [])],
    withImports(file, known) {
      const closure = new Map<string, DescFile>();
      collect(file, closure);
      const missing = [...closure.values()].filter(
        ({ proto }) => proto.name === file.proto.name || !known.has(proto.name),
      );
      for (const { proto } of missing) known.add(proto.name);
      return missing.map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
    },
  };
}

/** Adds a file and then what it imports. */
function collect(file: DescFile, files: Map<string, DescFile>): void {
  if (files.has(file.proto.name)) return;
  files.set(file.proto.name, file);
  for (const dependency of file.dependencies) collect(dependency, files);
}

function* symbolsOf(file: DescFile): Generator<string> {
  for (const message of file.messages) yield* symbolsOfMessage(message);
  for (const enumeration of file.enums) yield* symbolsOfEnum(enumeration);
  for (const extension of file.extensions) yield extension.typeName;
  for (const service of file.services) {
    yield service.typeName;
    for (const method of service.methods) yield `${service.typeName}.${method.name}`;
  }
}

function* symbolsOfMessage(message: DescMessage): Generator<string> {
  yield message.typeName;
  for (const field of message.fields) yield `${message.typeName}.${field.name}`;
  for (const oneof of message.oneofs) yield `${message.typeName}.${oneof.name}`;
  for (const nested of message.nestedEnums) yield* symbolsOfEnum(nested);
  for (const extension of message.nestedExtensions) yield extension.typeName;
  for (const nested of message.nestedMessages) yield* symbolsOfMessage(nested);
}

/** The values of an enum are siblings of the enum, not children (the rule of C++ that Protobuf follows). */
function* symbolsOfEnum(enumeration: DescEnum): Generator<string> {
  yield enumeration.typeName;
  const scope = enumeration.parent?.typeName ?? enumeration.file.proto.package;
  for (const value of enumeration.values) yield scope === "" ? value.name : `${scope}.${value.name}`;
}

function* extensionsOf(container: DescFile | DescMessage): Generator<DescExtension> {
  yield* container.kind === "file" ? container.extensions : container.nestedExtensions;
  const messages = container.kind === "file" ? container.messages : container.nestedMessages;
  for (const message of messages) yield* extensionsOf(message);
}
