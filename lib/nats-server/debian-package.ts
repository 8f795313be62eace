import { execFile } from "node:child_process";
import { access, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { BinarySource } from "./program.ts";

const run = promisify(execFile);
const commandTimeoutMs = 180_000;

/** Debian's suite with nats-server 2.10; the program also runs on the release before it. */
const preferredDebianSuite = "trixie";

interface Repository {
  readonly uri: string;
  readonly suite: string;
  /** Such as "main universe". */
  readonly components: string;
  /** Path of the distribution's own key ring, if it is in the usual place. */
  readonly keyring: string | undefined;
}

/**
 * The nats-server package of Debian or Ubuntu, unpacked without installing it: no root, and nothing of the system's
 * package state is read or changed but the address of its mirror and its keys. Debian's newer suite comes first, the
 * machine's own suite after it.
 */
export function debianPackage(): BinarySource[] {
  return [
    {
      name: `Debian's package (${preferredDebianSuite})`,
      fetch: (folder) => fetchPackage(folder, preferredDebianSuite),
    },
    { name: "the distribution's own package", fetch: (folder) => fetchPackage(folder) },
  ];
}

async function fetchPackage(folder: string, debianSuite?: string): Promise<string> {
  const repository = await systemRepository(debianSuite);
  const apt = await isolatedApt(folder, repository);
  await apt("update");
  await apt("download", "nats-server");
  const file = (await readdir(folder)).find((name) => name.endsWith(".deb"));
  if (file === undefined) throw new Error("apt-get left no package behind");
  await run("dpkg", ["-x", join(folder, file), join(folder, "root")], { timeout: commandTimeoutMs });
  return join(folder, "root", "usr", "sbin", "nats-server");
}

/** The mirror that this machine is set up to use, for its own suite or for another one of Debian's. */
async function systemRepository(debianSuite: string | undefined): Promise<Repository> {
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  const field = (name: string) => new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(release)?.[1];
  const id = field("ID");
  const codename = field("VERSION_CODENAME");
  if (id === undefined || codename === undefined || !["debian", "ubuntu"].includes(id)) {
    throw new Error("this machine runs neither Debian nor Ubuntu");
  }
  if (debianSuite !== undefined && id !== "debian") throw new Error("this machine does not run Debian");

  const format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
  const { stdout } = await run("apt-get", ["indextargets", "--format", format, "Identifier: Packages"]);
  const own = stdout
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, suite]) => suite === codename);
  const uri = own[0]?.[0];
  if (uri === undefined) throw new Error(`apt has no mirror for ${codename}`);
  const keyring = `/usr/share/keyrings/${id}-archive-keyring.gpg`;
  return {
    uri,
    suite: debianSuite ?? codename,
    components: [...new Set(own.filter(([site]) => site === uri).map(([, , component]) => component))].join(" "),
    keyring: await access(keyring).then(
      () => keyring,
      () => undefined,
    ),
  };
}

/** apt-get with one repository and with its lists and caches in a folder of their own. Signatures are checked as ever. */
async function isolatedApt(folder: string, repository: Repository) {
  const { uri, suite, components, keyring } = repository;
  const root = join(folder, "apt");
  for (const name of ["parts", "lists/partial", "cache/archives/partial"]) {
    await mkdir(join(root, name), { recursive: true });
  }
  const flags = ["target=Packages", ...(keyring === undefined ? [] : [`signed-by=${keyring}`])].join(" ");
  await writeFile(join(root, "sources.list"), `deb [${flags}] ${uri} ${suite} ${components}\n`);
  const options = [
    `Dir::Etc::sourcelist=${join(root, "sources.list")}`,
    `Dir::Etc::sourceparts=${join(root, "parts")}`,
    `Dir::State::lists=${join(root, "lists")}`,
    `Dir::Cache=${join(root, "cache")}`,
    "Acquire::Languages=none",
    "Acquire::http::Timeout=15",
    "Acquire::https::Timeout=15",
    // Root's apt would hand the download to a user who cannot enter root's cache folder.
    "APT::Sandbox::User=root",
    // A list that cannot be fetched is an error, not a warning.
    "APT::Update::Error-Mode=any",
  ].flatMap((option) => ["-o", option]);
  const env = { ...process.env, LC_ALL: "C" };
  return async (...command: string[]) => {
    try {
      await run("apt-get", [...options, "-q", ...command], { cwd: folder, timeout: commandTimeoutMs, env });
    } catch (error) {
      // Node's message repeats the long command; apt's own lines say what is wrong.
      const { stderr = "" } = error as { stderr?: string };
      const reasons = stderr.split("\n").filter((line) => line.startsWith("E:"));
      throw reasons.length === 0 ? error : new Error(reasons.join(" "), { cause: error });
    }
  };
}
