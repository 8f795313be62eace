import { eastAsianWidth } from "get-east-asian-width";

const segmenter = new Intl.Segmenter();
/** Control characters, among them those that begin a terminal's commands, and marks that turn the direction of writing. */
const unprintable = /[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu;

/** Text from outside as a terminal may show it: on one line, and unable to command it. */
export function printable(text: string): string {
  return text.replace(unprintable, " ");
}

/** How many columns a terminal needs for a text without control characters: two for each wide character or emoji. */
export function columnsOf(text: string): number {
  if (/^[ -~]*$/.test(text)) return text.length;
  let columns = 0;
  for (const { segment } of segmenter.segment(text)) columns += columnsOfSegment(segment);
  return columns;
}

/** What a reader sees as one character is as wide as the widest of its code points. */
function columnsOfSegment(segment: string): number {
  let widest = 0;
  for (const character of segment) widest = Math.max(widest, eastAsianWidth(character.codePointAt(0) ?? 0));
  return widest;
}

/** Exactly so many columns: cut with an ellipsis, or filled with spaces. */
export function fitted(text: string, columns: number): string {
  const needed = columnsOf(text);
  if (needed <= columns) return text + " ".repeat(columns - needed);
  let [kept, used] = ["", 0];
  for (const { segment } of segmenter.segment(text)) {
    const width = columnsOfSegment(segment);
    if (used + width > columns - 1) break;
    kept += segment;
    used += width;
  }
  return `${kept}…${" ".repeat(Math.max(0, columns - used - 1))}`;
}

/** A text as lines of at most so many columns, broken between words where it can be. */
export function wrapped(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (columnsOf(longer) <= columns) line = longer;
    else {
      if (line !== "") lines.push(line);
      line = "";
      for (const { segment } of segmenter.segment(word)) {
        if (columnsOf(line + segment) > columns) {
          lines.push(line);
          line = "";
        }
        line += segment;
      }
    }
  }
  return line === "" ? lines : [...lines, line];
}
