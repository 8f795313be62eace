import type { Random } from "../random.ts";

/** Red, green and blue, 0 to 255. */
export type Colour = readonly [number, number, number];

/** The colour at a point; x and y run from 0 to 1. */
export type Background = (x: number, y: number) => Colour;

/** A background of a kind, with colours and a geometry drawn at random. */
export function createBackground(random: Random): Background {
  const kinds = [plain, gradient, stripes, discs, clouds, horizon];
  const kind = kinds[random.integer(kinds.length)] ?? plain;
  return kind(random);
}

function plain(random: Random): Background {
  const colour = randomColour(random);
  return () => colour;
}

function gradient(random: Random): Background {
  const [from, to] = [randomColour(random), randomColour(random)];
  const along = randomDirection(random);
  return (x, y) => mix(from, to, 0.5 + along(x - 0.5, y - 0.5));
}

function stripes(random: Random): Background {
  const [first, second] = [randomColour(random), randomColour(random)];
  const along = randomDirection(random);
  const perImage = random.between(2, 8);
  const phase = random.unit();
  return (x, y) => {
    const position = along(x, y) * perImage + phase;
    const triangle = Math.abs(position - Math.floor(position) - 0.5) * 2;
    return mix(first, second, (triangle - 0.5) * 4 + 0.5);
  };
}

function discs(random: Random): Background {
  const base = randomColour(random);
  const all = Array.from({ length: 3 + random.integer(5) }, () => ({
    x: random.unit(),
    y: random.unit(),
    radius: random.between(0.08, 0.4),
    softness: random.between(0.05, 1),
    colour: randomColour(random),
  }));
  return (x, y) => {
    let colour = base;
    for (const disc of all) {
      const distance = Math.sqrt((x - disc.x) ** 2 + (y - disc.y) ** 2) / disc.radius;
      if (distance < 1) colour = mix(colour, disc.colour, (1 - distance) / disc.softness);
    }
    return colour;
  };
}

/** A coarse grid of random colours, blended smoothly. */
function clouds(random: Random): Background {
  const cells = 2 + random.integer(6);
  const [base, contrast] = [randomColour(random), random.between(0.2, 1)];
  const grid = Array.from({ length: (cells + 1) ** 2 }, () => mix(base, randomColour(random), contrast));
  const at = (column: number, row: number): Colour => grid[row * (cells + 1) + column] ?? base;
  return (x, y) => {
    const [column, row] = [Math.min(Math.floor(x * cells), cells - 1), Math.min(Math.floor(y * cells), cells - 1)];
    const [right, down] = [smooth(x * cells - column), smooth(y * cells - row)];
    const above = mix(at(column, row), at(column + 1, row), right);
    const below = mix(at(column, row + 1), at(column + 1, row + 1), right);
    return mix(above, below, down);
  };
}

function horizon(random: Random): Background {
  const [sky, ground] = [gradient(random), clouds(random)];
  const height = random.between(0.35, 0.85);
  const slope = random.between(-0.2, 0.2);
  return (x, y) => (y < height + slope * (x - 0.5) ? sky(x, y) : ground(x, y));
}

/** The distance of a point along a direction drawn at random. Rational instead of sine and cosine: exact everywhere. */
function randomDirection(random: Random): (x: number, y: number) => number {
  const [cosine, sine] = rotationOf(random.between(-1, 1));
  return (x, y) => x * cosine + y * sine;
}

/**
 * Cosine and sine of the angle whose half has this tangent.
 *
 * The trigonometric functions may differ in the last bit from one version of the runtime to the next; arithmetic does not.
 */
export function rotationOf(tangentOfHalf: number): readonly [cosine: number, sine: number] {
  const square = tangentOfHalf * tangentOfHalf;
  return [(1 - square) / (1 + square), (2 * tangentOfHalf) / (1 + square)];
}

function randomColour(random: Random): Colour {
  return [random.between(30, 240), random.between(30, 240), random.between(30, 240)];
}

function mix(from: Colour, to: Colour, share: number): Colour {
  const clamped = Math.min(Math.max(share, 0), 1);
  return [
    from[0] + (to[0] - from[0]) * clamped,
    from[1] + (to[1] - from[1]) * clamped,
    from[2] + (to[2] - from[2]) * clamped,
  ];
}

function smooth(share: number): number {
  return share * share * (3 - 2 * share);
}
