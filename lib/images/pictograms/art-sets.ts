/**
 * The art behind the pictograms: which sets there are, whose they are, and which of their drawings show which class.
 *
 * Each set has a style of its own, so a whole set is either for training or for testing: a network is measured on drawings in
 * styles of which it has seen nothing. The two Fluent sets show the same figures, so they stay on one side. Noto was drawn
 * anew for its second version, hence its first counts as another set, though the publisher is the same.
 *
 * Noto and Twemoji are held out: both are complete and in wide use, and they differ, one being shaded and one flat.
 */

import type { Cifar10Class } from "../sources/cifar10-classes.ts";

/** A set of pictograms in one style, as the npm package `@iconify-json/<id>` ships it. */
export interface ArtSet {
  readonly id: string;
  readonly title: string;
  readonly author: string;
  /** SPDX identifier. */
  readonly licence: string;
  readonly url: string;
  /** The part of the data set that its drawings become. */
  readonly split: "train" | "test";
}

const google = { author: "Google", licence: "Apache-2.0", url: "https://github.com/googlefonts/noto-emoji" };
const microsoft = { author: "Microsoft", licence: "MIT", url: "https://github.com/microsoft/fluentui-emoji" };

/** All sets. FxEmoji has no cat, deer or dog among the drawings wanted here; the others have every class. */
export const artSets: readonly ArtSet[] = [
  { id: "noto", title: "Noto Emoji", ...google, split: "test" },
  { id: "noto-v1", title: "Noto Emoji, first version", ...google, split: "train" },
  { id: "fluent-emoji", title: "Fluent Emoji", ...microsoft, split: "train" },
  { id: "fluent-emoji-flat", title: "Fluent Emoji, flat", ...microsoft, split: "train" },
  {
    id: "openmoji",
    title: "OpenMoji",
    author: "the OpenMoji project",
    licence: "CC-BY-SA-4.0",
    url: "https://openmoji.org",
    split: "train",
  },
  {
    id: "fxemoji",
    title: "FxEmoji",
    author: "Mozilla",
    licence: "Apache-2.0",
    url: "https://github.com/mozilla/fxemoji",
    split: "train",
  },
  {
    id: "twemoji",
    title: "Twemoji",
    author: "Twitter and contributors",
    licence: "CC-BY-4.0",
    url: "https://github.com/jdecked/twemoji",
    split: "test",
  },
  {
    id: "emojione",
    title: "EmojiOne 2",
    author: "EmojiOne and EmojiTwo contributors",
    licence: "CC-BY-4.0",
    url: "https://github.com/EmojiTwo/emojitwo",
    split: "train",
  },
];

const words = (text: string): readonly string[] => text.split(" ");

/**
 * Names under which the sets keep drawings of each class. A set contributes those that it has; where sets use different
 * names for a subject ("delivery-truck", "deliverytruck"), both are here.
 *
 * Only subjects that a person tells apart in 32 x 32 pixels: no runways below airplanes, which look like ships; no
 * cats and dogs from the side, which look like each other; no poodles, owls or swans, whose outlines say little.
 */
export const drawingNames: Readonly<Record<Cifar10Class, readonly string[]>> = {
  airplane: words("airplane small-airplane up-pointing-airplane northeast-pointing-airplane"),
  automobile: words(
    "automobile taxi police-car oncoming-automobile oncoming-taxi oncoming-police-car " +
      "policecar oncomingautomobile oncomingtaxi oncomingpolicecar",
  ),
  bird: words("bird black-bird blackbird dove doveofpeace parrot penguin rooster baby-chick babychick"),
  cat: words("cat-face grinning-cat grinning-cat-face pouting-cat pouting-cat-face"),
  deer: words("deer moose"),
  dog: words("dog-face"),
  frog: words("frog frog-face"),
  horse: words("horse horse-racing horse-riding horseracing unicorn unicorn-face"),
  ship: words("ship passenger-ship ferry motor-boat sailboat speedboat"),
  truck: words("articulated-lorry delivery-truck fire-engine articulatedlorry deliverytruck"),
};
