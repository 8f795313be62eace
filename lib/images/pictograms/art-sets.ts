/**
 * The art behind the pictograms: which sets there are, whose they are, and which of their drawings show which class.
 *
 * Every set was drawn by other people in another style, so a whole set is either for training or for testing: a network
 * is measured on drawings by artists of whom it has seen nothing. Sets that share artists stay on the same side.
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

/** All sets. FxEmoji has no deer; the others have every class. */
export const artSets: readonly ArtSet[] = [
  { id: "noto", title: "Noto Emoji", ...google, split: "train" },
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
    split: "test",
  },
];

const words = (text: string): readonly string[] => text.split(" ");

/**
 * Names under which the sets keep drawings of each class. A set contributes those that it has; where sets use different
 * names for a subject ("delivery-truck", "deliverytruck"), both are here.
 */
export const drawingNames: Readonly<Record<Cifar10Class, readonly string[]>> = {
  airplane: words(
    "airplane small-airplane airplane-departure airplane-arrival up-pointing-airplane northeast-pointing-airplane",
  ),
  automobile: words(
    "automobile taxi police-car sport-utility-vehicle racing-car oncoming-automobile oncoming-taxi oncoming-police-car " +
      "policecar oncomingautomobile oncomingtaxi oncomingpolicecar",
  ),
  bird: words(
    "bird dove duck eagle owl parrot flamingo swan goose penguin rooster chicken turkey peacock baby-chick dodo " +
      "front-facing-baby-chick black-bird blackbird doveofpeace babychick",
  ),
  cat: words(
    "cat cat-face black-cat grinning-cat pouting-cat kissing-cat cat-with-wry-smile grinning-cat-face pouting-cat-face " +
      "kissing-cat-face cat-face-with-wry-smile",
  ),
  deer: words("deer moose"),
  dog: words("dog dog-face guide-dog service-dog poodle dogside"),
  frog: words("frog frog-face"),
  horse: words("horse horse-face horse-racing horse-riding unicorn unicorn-face carousel-horse horseracing"),
  ship: words("ship passenger-ship ferry motor-boat sailboat speedboat canoe"),
  truck: words(
    "articulated-lorry delivery-truck pickup-truck fire-engine oncoming-fire-engine articulatedlorry deliverytruck",
  ),
};
