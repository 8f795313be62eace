/** The ten subjects of CIFAR-10 in the order of their labels. The pictograms draw the same ten. */
export const cifar10Classes = [
  "airplane",
  "automobile",
  "bird",
  "cat",
  "deer",
  "dog",
  "frog",
  "horse",
  "ship",
  "truck",
] as const;

export type Cifar10Class = (typeof cifar10Classes)[number];
