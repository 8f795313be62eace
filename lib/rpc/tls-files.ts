/** A server's certificate from files, which may be exchanged while it runs, as certificates are that live for weeks. */
import { unwatchFile, watchFile } from "node:fs";
import { readFile } from "node:fs/promises";
import { createSecureContext } from "node:tls";
import { AppError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { TlsIdentity } from "./port.ts";

/** Paths of PEM files. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly clientCa?: string | undefined;
}

/** How often the files are looked at unless something else is said. By time and size: mounted secrets are exchanged by links, which no watcher sees. */
const defaultPollMs = 10_000;

/** The files of a service's settings, or undefined if it has none. CONFIGURATION_INVALID if one of the two is missing. */
export function tlsFilesOf(config: {
  readonly tlsCertFile?: string | undefined;
  readonly tlsKeyFile?: string | undefined;
  readonly tlsClientCaFile?: string | undefined;
}): TlsFiles | undefined {
  const { tlsCertFile: cert, tlsKeyFile: key, tlsClientCaFile: clientCa } = config;
  if (cert !== undefined && key !== undefined) return { cert, key, clientCa };
  if (cert === undefined && key === undefined && clientCa === undefined) return undefined;
  const text = "MILLRACE_TLS_CERT_FILE and MILLRACE_TLS_KEY_FILE belong together; set both or neither";
  throw new AppError("CONFIGURATION_INVALID", text);
}

/** Reads and checks the files. CONFIGURATION_INVALID if one cannot be read or is no certificate or key. */
export async function readTlsIdentity({ cert, key, clientCa }: TlsFiles): Promise<TlsIdentity> {
  try {
    const [certPem, keyPem] = await Promise.all([readFile(cert), readFile(key)]);
    const identity = { cert: certPem, key: keyPem, ...(clientCa && { clientCa: await readFile(clientCa) }) };
    createSecureContext({ cert: certPem, key: keyPem, ...(identity.clientCa && { ca: identity.clientCa }) });
    return identity;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const text = `${cert} and ${key} cannot be used for TLS: ${reason}; they must be a certificate and its key in PEM`;
    throw new AppError("CONFIGURATION_INVALID", text, { cause });
  }
}

export interface TlsWatch {
  readonly files: TlsFiles;
  readonly logger: Logger;
  /** Default: 10 s. */
  readonly pollMs?: number;
}

/** Calls back with the identity whenever the files have changed. What cannot be used is logged, and the one before stays. */
export function watchTlsFiles(
  { files, logger, pollMs = defaultPollMs }: TlsWatch,
  onChange: (tls: TlsIdentity) => void,
): Disposable {
  const reload = () => {
    readTlsIdentity(files).then(
      (identity) => {
        onChange(identity);
        logger.info({ event: "tls.renewed" }, `${files.cert} has changed and is shown from now on`);
      },
      (error: unknown) =>
        logger.error({ event: "tls.unusable", error }, `${files.cert} has changed; the old one stays`),
    );
  };
  const paths = [files.cert, files.key, files.clientCa].filter((path) => path !== undefined);
  for (const path of paths) watchFile(path, { interval: pollMs, persistent: false }, reload);
  return {
    [Symbol.dispose]: () => {
      for (const path of paths) unwatchFile(path, reload);
    },
  };
}
