/**
 * The second engine: TensorFlow.js differentiates the network itself and its native backend runs the operations one by one.
 * Loss, optimisers, dropout masks and checkpoints are those of the default engine, so that the two agree up to rounding
 * and a training may go on with the other.
 */
import type { NetworkTrainer, TrainerOptions, TrainingEngine } from "../engine.ts";
import { normalizedTensor } from "../image-tensor.ts";
import { forwardFlops, type NetworkPlan, parameterCount, planFromLayersModel, writeWeights } from "../plan.ts";
import { core } from "../tensorflow.ts";
import type { StepResult, TrainingBatch } from "../training-session.ts";
import { nativeBackend, type TensorBackend } from "./tensorflow-backend.ts";
import { type BoundWeight, createTrainableNetwork, readVariable, tensorFromValues } from "./tensorflow-network.ts";
import { createTensorOptimizer, type TrainedWeight } from "./tensorflow-optimizers.ts";

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
  const network = await createTrainableNetwork(model, plan, config.batchSize);
  const optimizer = createTensorOptimizer(config.optimizer, network.weights);
  const weights = () => new Map(network.weights.map((bound) => [bound.key, readVariable(bound, bound.variable)]));
  if (state) restore(optimizer.weights, state);
  return {
    masks: network.masks,
    parameterCount: parameterCount(plan),
    forwardFlopsPerImage: forwardFlops(plan),
    async step(batch, position) {
      core.engine().startScope();
      try {
        const images = normalizedTensor(batch.pixels, plan.input, normalization);
        const logitsOf = () => network.apply(images, batch.masks);
        const { result, gradients } = lossAndGradients(network.weights, plan, { batch, logitsOf });
        optimizer.update(gradients, position);
        return result;
      } finally {
        core.engine().endScope();
      }
    },
    state: () => readState(optimizer.weights),
    weights,
    setWeights: (values) =>
      core.tidy(() => {
        for (const bound of network.weights) {
          if (values.has(bound.key)) bound.variable.assign(tensorFromValues(bound, values.get(bound.key)));
        }
      }),
    writeWeights: (values = weights()) => writeWeights(model, plan, values),
    async release() {
      optimizer.dispose();
      network.dispose();
    },
  };
}

/** The loss with its L2 penalties, the number of images classified right, and the gradients by the variables' names. */
function lossAndGradients(
  weights: readonly BoundWeight[],
  { classes }: NetworkPlan,
  { batch: { targets }, logitsOf }: { batch: TrainingBatch; logitsOf: () => core.Tensor },
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

/** The Layers API's regulariser of a weight: l2 sum(w^2). */
function addPenalty(loss: core.Tensor, { weight: { l2 = 0 }, variable }: BoundWeight): core.Tensor {
  return l2 === 0 ? loss : core.add(loss, core.mul(core.sum(core.square(variable)), l2));
}

function scalar(tensor: core.Tensor): number {
  return tensor.dataSync()[0] ?? Number.NaN;
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
