/** A scenario's figures, and how they are shown. */
import { quantile } from "../report.ts";

/** What is measured in each round. The first figure of a table is shown with its spread, the others by their medians. */
export interface Column {
  readonly key: string;
  /** With the unit. */
  readonly title: string;
  readonly digits: number;
}

export interface Row {
  readonly name: string;
  /** By key of the column, one value a round. */
  readonly figures: Record<string, number[]>;
}

export interface Table {
  readonly title: string;
  readonly columns: readonly Column[];
  readonly rows: readonly Row[];
  /** What the figures say, a sentence each. */
  readonly verdicts: readonly string[];
}

/** Rows by name, filled round by round. */
export function createRows() {
  const rows = new Map<string, Row>();
  return {
    add(name: string, figures: Readonly<Record<string, number>>): void {
      const row = rows.get(name) ?? { name, figures: {} };
      rows.set(name, row);
      for (const [key, value] of Object.entries(figures)) {
        row.figures[key] ??= [];
        row.figures[key].push(value);
      }
    },
    /** The values of a figure, round by round; none where there is no such row. */
    values: (name: string, key: string): readonly number[] => rows.get(name)?.figures[key] ?? [],
    all: (): Row[] => [...rows.values()],
  };
}

export function median(values: readonly number[]): number {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return quantile(sorted, 0.5);
}

/** The median with the least and the most, as text. */
export function spread(values: readonly number[], digits: number): string {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  const [middle, least, most] = [quantile(sorted, 0.5), sorted[0], sorted.at(-1)].map((value) =>
    (value ?? Number.NaN).toFixed(digits),
  );
  return `${middle} (${least} to ${most})`;
}

/** Round by round, so that a slow moment of the machine is in both. */
export function ratios(values: readonly number[], of: readonly number[]): number[] {
  return values.map((value, round) => value / (of[round] ?? Number.NaN));
}

export function tableLines({ title, columns, rows, verdicts }: Table): string[] {
  const [first] = columns;
  const heads = columns.flatMap(({ key, title }) => (key === first?.key ? [title, "least", "most"] : [title]));
  const cells = rows.map((row) => columns.flatMap((column) => cellsOf(row, column, column.key === first?.key)));
  const widths = heads.map((head, at) => Math.max(head.length, ...cells.map((line) => line[at]?.length ?? 0)));
  const nameWidth = Math.max(0, ...rows.map(({ name }) => name.length));
  const line = (name: string, texts: readonly string[]): string =>
    [name.padEnd(nameWidth), ...texts.map((text, at) => text.padStart(widths[at] ?? 0))].join("  ").trimEnd();
  return [title, "", line("", heads), ...rows.map(({ name }, at) => line(name, cells[at] ?? [])), "", ...verdicts];
}

function cellsOf({ figures }: Row, { key, digits }: Column, withSpread: boolean): string[] {
  const sorted = (figures[key] ?? []).filter(Number.isFinite).sort((a, b) => a - b);
  const shown = withSpread ? [quantile(sorted, 0.5), sorted[0], sorted.at(-1)] : [quantile(sorted, 0.5)];
  return shown.map((value) => (value === undefined || Number.isNaN(value) ? "-" : value.toFixed(digits)));
}
