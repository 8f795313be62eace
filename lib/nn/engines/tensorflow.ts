/**
 * The second engine: TensorFlow.js differentiates the network itself and its native backend runs the operations one by one.
 * Loss, optimisers, dropout masks and checkpoints are those of the default engine, so that the two agree up to rounding
 * and a training may go on with the other.
 */
import type { NetworkTrainer, TrainerOptions, TrainingEngine } from "../engine.ts";
import type { Optimizer } from "../optimizers/definition.ts";
import { createOptimizer } from "../optimizers.ts";
import { forwardFlops, type NetworkPlan, parameterCount, planFromLayersModel, writeWeights } from "../plan.ts";
import { type Normalization, normalizationFactors } from "../preprocessing.ts";
import { core } from "../tensorflow.ts";
import type { StepResult, TrainingBatch } from "../training-session.ts";
import { nativeBackend, type TensorBackend } from "./tensorflow-backend.ts";
import { type BoundWeight, createTrainableNetwork, readVariable, tensorFromValues } from "./tensorflow-network.ts";
import { createTensorUpdate, type UpdatedTensors } from "./tensorflow-optimizers.ts";

/** The engine on a backend of TensorFlow.js, any of which gives the same results up to rounding. */
export function createTensorflowEngine(backend: TensorBackend): TrainingEngine {
  return {
    name: "tensorflow",
    get version() {
      return backend.version;
    },
    check: () => backend.check(),
    async createTrainer(options) {
      await backend.load();
      return createTrainer(options);
    },
  };
}

export const tensorflowEngine: TrainingEngine = createTensorflowEngine(nativeBackend());

async function createTrainer({ model, config, normalization, state }: TrainerOptions): Promise<NetworkTrainer> {
  const plan = planFromLayersModel(model);
  const optimizer = createOptimizer(config.optimizer);
  const update = createTensorUpdate(config.optimizer);
  const network = await createTrainableNetwork(model, plan, config.batchSize);
  const weights = network.weights.map((bound) => trainedWeight(bound, optimizer));
  if (state) restore(weights, state);
  const current = () => readState(weights);
  return {
    masks: network.masks,
    parameterCount: parameterCount(plan),
    forwardFlopsPerImage: forwardFlops(plan),
    async step(batch, { step, learningRate }) {
      const scalars = optimizer.scalars(step + 1, learningRate);
      core.engine().startScope();
      try {
        const images = normalizedImages(batch.pixels, plan, normalization);
        const { result, gradients } = lossAndGradients(weights, plan, batch, () => network.apply(images, batch.masks));
        for (const trained of weights) {
          const { weight, variable, slots } = trained;
          const gradient = gradients[variable.name];
          if (gradient === undefined) continue;
          assign(trained, update({ parameter: variable, gradient, slots, scalars, decays: weight.role === "weight" }));
        }
        return result;
      } finally {
        core.engine().endScope();
      }
    },
    state: current,
    weights: () => new Map(weights.map((bound) => [bound.key, readVariable(bound, bound.variable)])),
    setWeights: (values) =>
      core.tidy(() => {
        for (const bound of weights) {
          if (values.has(bound.key)) bound.variable.assign(tensorFromValues(bound, values.get(bound.key)));
        }
      }),
    writeWeights: (values = current()) => writeWeights(model, plan, values),
    async release() {
      for (const { slots } of weights) core.dispose(Object.values(slots));
      network.dispose();
    },
  };
}

interface TrainedWeight extends BoundWeight {
  /** The optimiser's tensors of this weight; none for running statistics. */
  readonly slots: Readonly<Record<string, core.Variable>>;
}

function trainedWeight(bound: BoundWeight, { slots }: Optimizer): TrainedWeight {
  const names = bound.weight.role === "statistic" ? [] : slots;
  const zeros = () => core.tidy(() => core.variable(core.zerosLike(bound.variable), false));
  return { ...bound, slots: Object.fromEntries(names.map((slot) => [slot, zeros()])) };
}

/** The loss with its L2 penalties, the number of images classified right, and the gradients by the variables' names. */
function lossAndGradients(
  weights: readonly TrainedWeight[],
  { classes }: NetworkPlan,
  { targets }: TrainingBatch,
  logitsOf: () => core.Tensor,
): { readonly result: StepResult; readonly gradients: core.NamedTensorMap } {
  const goal = core.tensor(targets, [targets.length / classes, classes]);
  const parameters = weights.filter(({ weight }) => weight.role !== "statistic");
  let correct = 0;
  const { value, grads } = core.variableGrads(
    () => {
      const logits = logitsOf();
      const hits = core.equal(core.argMax(logits, 1), core.argMax(goal, 1));
      correct = scalar(core.sum(core.cast(hits, "float32")));
      const entropy = core.neg(core.mean(core.sum(core.mul(goal, core.logSoftmax(logits)), 1)));
      return parameters.reduce<core.Tensor>(addPenalty, entropy) as core.Scalar;
    },
    parameters.map(({ variable }) => variable),
  );
  return { result: { loss: scalar(value), correct }, gradients: grads };
}

/** The Layers API's kernel regulariser: l2 sum(w^2). */
function addPenalty(loss: core.Tensor, { weight: { l2 = 0 }, variable }: TrainedWeight): core.Tensor {
  return l2 === 0 ? loss : core.add(loss, core.mul(core.sum(core.square(variable)), l2));
}

function scalar(tensor: core.Tensor): number {
  return tensor.dataSync()[0] ?? Number.NaN;
}

/** uint8 pixels [N, C, H, W] as normalised floats [N, H, W, C]. */
function normalizedImages(pixels: Uint8Array, { input }: NetworkPlan, normalization: Normalization): core.Tensor {
  const { channels, height, width } = input;
  const { slopes, shifts } = normalizationFactors(normalization);
  const images = core.tensor(Float32Array.from(pixels), [
    pixels.length / (channels * height * width),
    channels,
    height,
    width,
  ]);
  return core.add(core.mul(core.transpose(images, [0, 2, 3, 1]), slopes), shifts);
}

function assign({ variable, slots }: TrainedWeight, updated: UpdatedTensors): void {
  variable.assign(updated.parameter);
  for (const [slot, tensor] of Object.entries(updated.slots)) slots[slot]?.assign(tensor);
}

function readState(weights: readonly TrainedWeight[]): ReadonlyMap<string, Float32Array> {
  const entries = weights.flatMap((bound) =>
    Array.from(stateVariables(bound), ([name, variable]) => [name, readVariable(bound, variable)] as const),
  );
  return new Map(entries);
}

function restore(weights: readonly TrainedWeight[], state: ReadonlyMap<string, Float32Array>): void {
  core.tidy(() => {
    for (const bound of weights) {
      for (const [key, variable] of stateVariables(bound)) {
        variable.assign(tensorFromValues({ ...bound, key }, state.get(key)));
      }
    }
  });
}

/** A weight and its optimiser's tensors, by their names in checkpoints. */
function* stateVariables({ key, variable, slots }: TrainedWeight): Generator<[string, core.Variable]> {
  yield [key, variable];
  for (const [slot, tensor] of Object.entries(slots)) yield [`${key}/${slot}`, tensor];
}
