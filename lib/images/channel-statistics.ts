/** Mean and standard deviation of each channel, pixel values scaled to 0..1. */
export interface ChannelStatistics {
  readonly means: readonly number[];
  readonly deviations: readonly number[];
}

/** Gathers the statistics of images without keeping them. */
export interface ChannelAccumulator {
  /** Counts an image: `channels` planes of equal size. */
  add(pixels: Uint8Array): void;
  /** Statistics of all images counted so far; zeros if there were none. */
  result(): ChannelStatistics;
}

/**
 * Counts how often each of the 256 values occurs in each channel. Counts are whole numbers, so the result depends on
 * neither the images' order nor rounding: the sums are exact, and one division at the end rounds once.
 */
export function createChannelAccumulator(channels: number): ChannelAccumulator {
  const histograms = Array.from({ length: channels }, () => new Float64Array(256));
  return {
    add(pixels) {
      const plane = pixels.length / channels;
      histograms.forEach((histogram, channel) => {
        const end = (channel + 1) * plane;
        for (let at = channel * plane; at < end; at++) {
          const value = pixels[at] ?? 0;
          histogram[value] = (histogram[value] ?? 0) + 1;
        }
      });
    },
    result() {
      const moments = histograms.map(momentsOf);
      return { means: moments.map(({ mean }) => mean), deviations: moments.map(({ deviation }) => deviation) };
    },
  };
}

function momentsOf(histogram: Float64Array): { mean: number; deviation: number } {
  let [count, sum, squares] = [0n, 0n, 0n];
  histogram.forEach((occurrences, value) => {
    count += BigInt(occurrences);
    sum += BigInt(occurrences) * BigInt(value);
    squares += BigInt(occurrences) * BigInt(value * value);
  });
  if (count === 0n) return { mean: 0, deviation: 0 };
  const variance = Number(count * squares - sum * sum) / Number(count * count);
  return { mean: Number(sum) / Number(count) / 255, deviation: Math.sqrt(variance) / 255 };
}
