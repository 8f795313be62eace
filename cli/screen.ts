import type { WriteStream } from "node:tty";

/** Where a command writes: lines that stay, and below them a few that are drawn again and again. */
export interface Screen {
  /** Whether a person watches: a terminal that can move its cursor. */
  readonly interactive: boolean;
  /** Writes a line that stays. */
  line(text?: string): void;
  /** Draws the live lines anew. Does nothing where nobody watches. */
  draw(lines: readonly string[]): void;
  /** Lets the live lines stay as they are. */
  keep(): void;
}

export function createScreen(out: WriteStream = process.stdout): Screen {
  const interactive = out.isTTY === true && process.env.TERM !== "dumb";
  let live: readonly string[] = [];
  const erase = () => {
    if (live.length > 0) out.write(`\x1b[${live.length}A\x1b[0J`);
  };
  const write = (lines: readonly string[]) => {
    for (const text of lines) out.write(`${fit(text, out.columns || 80)}\n`);
  };
  return {
    interactive,
    line: (text = "") => {
      erase();
      out.write(`${text}\n`);
      write(live);
    },
    draw: (lines) => {
      if (!interactive) return;
      erase();
      live = lines;
      write(live);
    },
    keep: () => {
      live = [];
    },
  };
}

/** Cuts a line to the terminal's width, colours not counted: a line that wraps could not be drawn over. */
function fit(text: string, width: number): string {
  let shown = 0;
  let result = "";
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control sequences
  for (const [part] of text.matchAll(/\x1b\[[0-9;]*m|./gu)) {
    if (part.startsWith("\x1b")) result += part;
    else if (shown < width - 1) {
      result += part;
      shown++;
    }
  }
  return result;
}
