/** Forward passes in plain float64, to take finite differences of where ONNX Runtime calculates in float32 only. */

/** A function of one number, applied to each element of the layer's input. */
export function elementWiseReference(f: (x: number) => number) {
  return ({ x0 = [] }: Readonly<Record<string, ArrayLike<number>>>): Float64Array => Float64Array.from(x0, f);
}

/** x P(x), P being the distribution function of the standard normal distribution. */
export const gelu = (x: number): number => (x * (1 + erf(x / Math.SQRT2))) / 2;

/** The series with positive terms only, 2 / sqrt(pi) exp(-x^2) sum(2^n x^(2n+1) / (2n+1)!!), exact to rounding up to |x| = 6. */
function erf(x: number): number {
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}
