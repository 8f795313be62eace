/** The curves of a training as a picture: loss, accuracy and learning rate by epoch. The same epochs give the same picture, byte for byte. */
import type { EpochReport } from "./training.ts";

interface Series {
  readonly name: string;
  /** Class of its line, which gives it its colour. */
  readonly style: "training" | "validation";
  /** One an epoch. */
  readonly values: readonly number[];
}

interface Panel {
  readonly title: string;
  readonly series: readonly Series[];
  /** Least end of the axis, where the values do not reach below it. */
  readonly from?: number;
  readonly text: (tick: number) => string;
}

const panelWidth = 300;
const panelHeight = 260;
/** Above the panels, for the title of the whole. */
const headHeight = 34;
/** The part of a panel in which lines are drawn. */
const plot = { left: 58, right: 288, top: 58, bottom: 214 };

/** Colours for a light page, and for a dark one where the viewer asks for that. */
const css = `
  .page { fill: #ffffff } .grid { stroke: #e1e4e8 } text { fill: #57606a; font: 11px system-ui, sans-serif }
  .title { fill: #1f2328; font-weight: 600; font-size: 13px } .whole { font-size: 15px } .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
  .training { stroke: #0969da } .validation { stroke: #bc4c00 } .dot.training { fill: #0969da } .dot.validation { fill: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .grid { stroke: #30363d } text { fill: #9198a1 } .title { fill: #e6edf3 }
    .training { stroke: #58a6ff } .validation { stroke: #f0883e } .dot.training { fill: #58a6ff } .dot.validation { fill: #f0883e }
  }`;

/** An SVG document with three panels. `title` says what was trained; at least one epoch. */
export function drawTrainingCurves(epochs: readonly EpochReport[], title: string): string {
  const panels = panelsOf(epochs);
  const [width, height] = [panels.length * panelWidth, headHeight + panelHeight];
  const firstEpoch = epochs[0]?.epoch ?? 1;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<title>${escaped(title)}</title>`,
    `<style>${css}\n</style>`,
    `<rect class="page" width="${width}" height="${height}"/>`,
    `<text class="title whole" x="16" y="26">${escaped(title)}</text>`,
    ...panels.flatMap((panel, index) => [
      `<g transform="translate(${index * panelWidth} ${headHeight})">`,
      ...drawPanel(panel, { first: firstEpoch, last: firstEpoch + epochs.length - 1 }),
      "</g>",
    ]),
    "</svg>",
    "",
  ].join("\n");
}

function panelsOf(epochs: readonly EpochReport[]): Panel[] {
  const training = (value: (epoch: EpochReport) => number): Series => ({
    name: "training",
    style: "training",
    values: epochs.map(value),
  });
  const validation = (value: (epoch: EpochReport) => number | undefined): Series[] => {
    const values = epochs.map(value).filter((number) => number !== undefined);
    return values.length === epochs.length ? [{ name: "validation", style: "validation", values }] : [];
  };
  const plain = (tick: number): string => String(Number(tick.toPrecision(6)));
  return [
    {
      title: "Loss",
      series: [training(({ loss }) => loss), ...validation(({ validationLoss }) => validationLoss)],
      text: plain,
    },
    {
      title: "Accuracy",
      series: [training(({ accuracy }) => accuracy), ...validation(({ validationAccuracy }) => validationAccuracy)],
      text: (tick) => `${plain(100 * tick)} %`,
    },
    { title: "Learning rate", series: [training(({ learningRate }) => learningRate)], from: 0, text: plain },
  ];
}

function drawPanel({ title, series, from, text }: Panel, epochs: { first: number; last: number }): string[] {
  const values = series.flatMap((line) => line.values);
  const vertical = roundTicks(Math.min(...values, from ?? Number.POSITIVE_INFINITY), Math.max(...values), 5);
  const horizontal = roundTicks(epochs.first, Math.max(epochs.last, epochs.first + 1), 6).filter(
    (tick) => Number.isInteger(tick) && tick >= epochs.first && tick <= epochs.last,
  );
  const x = scale([epochs.first, Math.max(epochs.last, epochs.first + 1)], [plot.left, plot.right]);
  const y = scale([vertical[0] ?? 0, vertical.at(-1) ?? 1], [plot.bottom, plot.top]);
  return [
    `<text class="title" x="${plot.left}" y="24">${title}</text>`,
    ...(series.length > 1 ? legend(series) : []),
    ...vertical.flatMap((tick) => [
      `<line class="grid" x1="${plot.left}" x2="${plot.right}" y1="${y(tick)}" y2="${y(tick)}"/>`,
      `<text x="${plot.left - 8}" y="${(Number(y(tick)) + 4).toFixed(1)}" text-anchor="end">${text(tick)}</text>`,
    ]),
    ...horizontal.map((tick) => `<text x="${x(tick)}" y="${plot.bottom + 18}" text-anchor="middle">${tick}</text>`),
    `<text x="${(plot.left + plot.right) / 2}" y="${plot.bottom + 36}" text-anchor="middle">epoch</text>`,
    ...series.flatMap(({ style, values: line }) => {
      const points = line.map((value, index) => ({ x: x(epochs.first + index), y: y(value) }));
      const path = points.map((point) => `${point.x},${point.y}`).join(" ");
      const last = points.at(-1);
      return [
        `<polyline class="line ${style}" points="${path}"/>`,
        // The last value, and the only one where there is a single epoch.
        `<circle class="dot ${style}" cx="${last?.x}" cy="${last?.y}" r="2.5"/>`,
      ];
    }),
  ];
}

function legend(series: readonly Series[]): string[] {
  return series.flatMap(({ name, style }, index) => {
    const left = plot.left + index * 82;
    return [
      `<line class="line ${style}" x1="${left}" x2="${left + 14}" y1="40" y2="40"/>`,
      `<text x="${left + 19}" y="44">${name}</text>`,
    ];
  });
}

/** Round numbers, 1, 2 or 5 times a power of ten apart, that enclose a range in at most `most` steps or a few more. */
export function roundTicks(least: number, greatest: number, most: number): number[] {
  const [low, high] = isFlat(least, greatest) ? [Math.min(0, least), Math.max(0, greatest)] : [least, greatest];
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= most) ?? span;
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  return Array.from({ length: Math.max(1, last - first) + 1 }, (_, index) =>
    Number(((first + index) * step).toPrecision(12)),
  );
}

/** Whether values are so close to each other that ticks between them would need many digits: such a range is drawn from zero. */
function isFlat(least: number, greatest: number): boolean {
  return greatest - least < 1e-3 * Math.max(Math.abs(least), Math.abs(greatest)) || greatest === least;
}

function scale([least, greatest]: [number, number], [start, end]: [number, number]): (value: number) => string {
  return (value) => (start + ((value - least) / (greatest - least)) * (end - start)).toFixed(1);
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
