/** Room for the pixels of images that are decoded at the same time. */
export interface PixelRoom {
  /** Does the work when there is room for so many pixels, at most all there is. Those who wait come in the order in which they asked. */
  use<T>(pixels: number, work: () => Promise<T>): Promise<T>;
}

/** Room for so many pixels at a time. */
export function createPixelRoom(totalPixels: number): PixelRoom {
  const waiting: { readonly pixels: number; enter(): void }[] = [];
  let usedPixels = 0;

  function letIn(): void {
    for (let next = waiting[0]; next !== undefined && usedPixels + next.pixels <= totalPixels; next = waiting[0]) {
      waiting.shift();
      usedPixels += next.pixels;
      next.enter();
    }
  }

  return {
    async use(pixels, work) {
      await new Promise<void>((enter) => {
        waiting.push({ pixels, enter });
        letIn();
      });
      try {
        return await work();
      } finally {
        usedPixels -= pixels;
        letIn();
      }
    },
  };
}
