/** Pixels that lie channel beside channel, put channel after channel: [H, W, C] to [C, H, W]. */
export function planesOf(interleaved: Uint8Array, channels: number): Uint8Array {
  const plane = interleaved.length / channels;
  const result = new Uint8Array(interleaved.length);
  for (let channel = 0; channel < channels; channel++) {
    for (let pixel = 0, from = channel; pixel < plane; pixel++, from += channels) {
      result[channel * plane + pixel] = interleaved[from] ?? 0;
    }
  }
  return result;
}
