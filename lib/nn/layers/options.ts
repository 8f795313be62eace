/** Reading a layer's configuration: an option that would silently be ignored is an error instead. */
import { z } from "zod";
import { AppError } from "../../errors.ts";
import type { LayerNode, WeightSpec } from "./definition.ts";

/** A regulariser, of which only the sum of squares is supported. Its factor, 0 for none. */
export const regularizerOption = z
  .object({ className: z.literal("L1L2"), config: z.object({ l1: z.literal(0), l2: z.number().nonnegative() }) })
  .nullish()
  .transform((value) => value?.config.l2 ?? 0);

/** Options that must be left alone. */
const absent = z.null().optional();

/** What the layers with weights have in common. */
export const biasOptions = {
  useBias: z.boolean(),
  biasRegularizer: regularizerOption,
  activityRegularizer: absent,
};

/** The bias of such a layer, or nothing where it has none. */
export function biasSpecs(options: { readonly useBias: boolean; readonly biasRegularizer: number }): WeightSpec[] {
  return options.useBias ? [{ name: "bias", role: "bias", l2: options.biasRegularizer }] : [];
}

/** What the layers with a single kernel have in common. */
export const kernelOptions = { ...biasOptions, kernelRegularizer: regularizerOption };

const pair = z.tuple([z.number().int().positive(), z.number().int().positive()]);

/** What the layers with a moving window have in common. */
export const windowOptions = {
  strides: pair,
  padding: z.enum(["valid", "same"]),
  dataFormat: z.literal("channelsLast"),
};

const channelsLast = z.object({ dataFormat: windowOptions.dataFormat.nullish() });

export const pairOption = pair;
export const absentOption = absent;

/** For layers whose only option is the order of their input's axes. LAYER_UNSUPPORTED for channels first, which would be another network. */
export function requireChannelsLast(node: LayerNode): void {
  readOptions(node, channelsLast);
}

/** The node's configuration by its schema, or LAYER_UNSUPPORTED naming the layer and the option. */
export function readOptions<T extends z.ZodType>(node: LayerNode, schema: T): z.output<T> {
  const result = schema.safeParse(node.config);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const option = issue?.path.join(".") ?? "";
  throw new AppError(
    "LAYER_UNSUPPORTED",
    `layer ${node.name} (${node.className}): option ${option} has a value that is not supported: ${issue?.message}`,
    { details: { layer: node.name, className: node.className, option } },
  );
}
