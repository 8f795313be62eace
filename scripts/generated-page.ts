/** What the generators of pages share: Markdown, and writing a page or checking that it is up to date. */
import { readFileSync, writeFileSync } from "node:fs";

export function code(text: string): string {
  return `\`${text}\``;
}

export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(header), line(header.map(() => "---")), ...rows.map(line)].join("\n");
}

export interface GeneratedPage {
  readonly file: string;
  readonly text: string;
  /** How it is written anew. */
  readonly command: string;
  /** Arguments of the command: `--check` writes nothing. */
  readonly args: readonly string[];
}

/** Writes the page; with `--check`, says on standard error if it is out of date. Returns the status to exit with. */
export function writeOrCheck({ file, text, command, args }: GeneratedPage): number {
  if (!args.includes("--check")) {
    writeFileSync(file, text);
    return 0;
  }
  if (readIfThere(file) === text) return 0;
  console.error(`${file} is not what the code says; run: ${command}`);
  return 1;
}

/** The text of a file, or undefined if there is none. */
export function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
