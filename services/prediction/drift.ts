/** Whether what comes in and what is answered still resembles the data set that a version was measured on. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DriftMeasureSchema } from "../../gen/millrace/v1/events_pb.ts";
import type { ModelManifest, ModelVersion } from "../../gen/millrace/v1/model_pb.ts";

/**
 * Above this population stability index a distribution counts as another one: the limit that is customary where scores are monitored. What
 * chance alone makes of so few images is added to it.
 */
const labelThreshold = 0.2;
/** How far the mean of a channel may move, in standard deviations of a pixel. Half of one is plainly darker, brighter or tinted. */
const channelThreshold = 0.5;

export type DriftMeasure = Required<Omit<MessageInitShape<typeof DriftMeasureSchema>, "$typeName" | "$unknown">>;

export interface DriftDetector {
  /** Takes in an answer and its image, uint8 [C, H, W]. Every `window` of them gives the measures; else undefined. */
  add(classIndex: number, pixels: Uint8Array): readonly DriftMeasure[] | undefined;
}

/** Compares windows of so many answers with what the version's evaluation and its data set say. */
export function createDriftDetector(
  { evaluation }: ModelVersion,
  manifest: ModelManifest,
  window: number,
): DriftDetector {
  const { classes, channelMeans, channelDeviations } = manifest;
  const confusion = evaluation?.confusionMatrix ?? [];
  const answeredInTest = classes.map((_, index) => columnSum(confusion, classes.length, index));
  let answered = classes.map(() => 0);
  let sums = channelMeans.map(() => 0);
  let count = 0;
  return {
    add(classIndex, pixels) {
      answered[classIndex] = (answered[classIndex] ?? 0) + 1;
      const plane = pixels.length / sums.length;
      for (let channel = 0; channel < sums.length; channel++) {
        sums[channel] = (sums[channel] ?? 0) + mean(pixels.subarray(channel * plane, (channel + 1) * plane)) / 255;
      }
      if (++count < window) return undefined;
      const channels = channelMeans.map((expected, channel) =>
        measureChannel(channel, {
          expected,
          actual: (sums[channel] ?? 0) / count,
          deviation: channelDeviations[channel] ?? 0,
        }),
      );
      // A version that was never evaluated has nothing to compare its answers with.
      const labels = confusion.length === 0 ? [] : [measureLabels(classes, answeredInTest, answered)];
      answered = classes.map(() => 0);
      sums = channelMeans.map(() => 0);
      count = 0;
      return [...labels, ...channels];
    },
  };
}

/** Images of the test that were answered with a class, right or wrong. */
function columnSum(matrix: readonly number[], size: number, column: number): number {
  let sum = 0;
  for (let row = 0; row < size; row++) sum += matrix[row * size + column] ?? 0;
  return sum;
}

function mean(values: Uint8Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return values.length === 0 ? 0 : sum / values.length;
}

/** Answers are compared with answers: a version that always confuses two classes has not drifted. */
function measureLabels(classes: readonly string[], before: readonly number[], now: readonly number[]): DriftMeasure {
  const [expected, actual] = [shares(before), shares(now)];
  const distance = stabilityIndex(expected, actual);
  // Two samples of one distribution differ by this on average (half a chi-square, once for each sample).
  const chance = (classes.length - 1) * (1 / total(before) + 1 / total(now));
  const threshold = labelThreshold + 2 * chance;
  const change = (index: number): number => (actual[index] ?? 0) - (expected[index] ?? 0);
  const most = classes.reduce((best, _, index) => (Math.abs(change(index)) > Math.abs(change(best)) ? index : best), 0);
  const percent = (share = 0) => `${(100 * share).toFixed(0)} %`;
  const message = `${percent(actual[most])} are called "${classes[most]}", in the test ${percent(expected[most])} were`;
  return { name: "label_distribution", drifted: distance > threshold, distance, threshold, expected, actual, message };
}

/** Each class has half an image more, so that one that was never answered has a logarithm. */
function shares(counts: readonly number[]): number[] {
  const all = total(counts) + counts.length / 2;
  return counts.map((count) => (count + 0.5) / all);
}

const total = (counts: readonly number[]): number => counts.reduce((sum, count) => sum + count, 0);

/** Population stability index: the sum of (a - e) ln(a / e), 0 for equal distributions. */
function stabilityIndex(expected: readonly number[], actual: readonly number[]): number {
  return expected.reduce((sum, share, index) => {
    const now = actual[index] ?? 0;
    return sum + (now - share) * Math.log(now / share);
  }, 0);
}

interface ChannelMeans {
  readonly expected: number;
  readonly actual: number;
  /** Of a pixel in the data set. */
  readonly deviation: number;
}

function measureChannel(channel: number, { expected, actual, deviation }: ChannelMeans): DriftMeasure {
  // A data set of one colour has no deviation; any other colour is then infinitely far.
  const distance = actual === expected ? 0 : Math.abs(actual - expected) / deviation;
  return {
    name: `channel_mean_${channel}`,
    drifted: distance > channelThreshold,
    distance,
    threshold: channelThreshold,
    expected: [expected],
    actual: [actual],
    message: `the mean of channel ${channel} is ${actual.toFixed(3)}, in the data set it is ${expected.toFixed(3)}`,
  };
}
