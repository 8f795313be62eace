/** A training step loaded into ONNX Runtime, with the state it works on. */
import { InferenceSession, Tensor } from "onnxruntime-node";
import { AppError } from "../errors.ts";
import type { TrainingProgram } from "./training-graph.ts";

/** What one step is fed. */
export interface TrainingBatch {
  /** uint8 [N, C, H, W]. */
  readonly pixels: Uint8Array;
  /** [N, classes], rows that sum to the weight of their image in the loss, 1 without class weights. */
  readonly targets: Float32Array;
  /** The dropout masks, in the order of the program's. */
  readonly masks: readonly Float32Array[];
}

export interface StepResult {
  /** Mean over the batch. */
  readonly loss: number;
  /** Images classified right. */
  readonly correct: number;
}

export interface TrainingSession {
  /** Runs one step on the calling thread, which native code holds until it ends. `scalars` are the optimiser's. */
  step(batch: TrainingBatch, scalars: Readonly<Record<string, number>>): Promise<StepResult>;
  /** The state by name. The arrays are the session's own and change with the next step but one: copy what is to stay. */
  state(): ReadonlyMap<string, Float32Array>;
  /** Copies other values into tensors of the state. */
  assign(values: ReadonlyMap<string, Float32Array>): void;
  release(): Promise<void>;
}

export interface TrainingSessionOptions {
  /** 0 leaves the number to ONNX Runtime. */
  readonly intraOpThreads: number;
  /** State to go on from, by name. Default: the program's initial state. */
  readonly state?: ReadonlyMap<string, Float32Array>;
  /** Where to write ONNX Runtime's profile, for measurements. */
  readonly profilePrefix?: string;
}

/** Images from which on a step's memory counts for more than the few per cent of its time that the arena saves. */
const largeBatch = 256;

/** Loads a program. */
export async function createTrainingSession(
  program: TrainingProgram,
  options: TrainingSessionOptions,
): Promise<TrainingSession> {
  // Alone, because what is returned would otherwise hold the state of the options, which is only read here.
  const { profilePrefix } = options;
  // Two sets of buffers that change places: a step reads one and writes the other, so no state is ever copied.
  let current = stateTensors(program, options.state);
  let spare = stateTensors(program);
  const session = await InferenceSession.create(program.model, {
    intraOpNumThreads: options.intraOpThreads,
    // The arena asks the system for powers of two, which nearly doubles the memory of a large step, and saves a small one some time.
    enableCpuMemArena: program.batchSize < largeBatch,
    // 3 is errors: warnings would tell of initialisers that constant folding has made superfluous.
    logSeverityLevel: 3,
    ...(profilePrefix && { enableProfiling: true, profileFilePrefix: profilePrefix }),
  });
  const loss = new Tensor("float32", new Float32Array(1), []);
  const correct = new Tensor("float32", new Float32Array(1), []);

  return {
    async step(batch, scalars) {
      const feeds = { ...batchTensors(program, batch), ...scalarTensors(scalars), ...Object.fromEntries(current) };
      const next = Array.from(spare, ([name, tensor]) => [`next/${name}`, tensor] as const);
      await session.run(feeds, { loss, correct, ...Object.fromEntries(next) });
      [current, spare] = [spare, current];
      return { loss: Number(loss.data[0]), correct: Number(correct.data[0]) };
    },
    state: () => new Map(Array.from(current, ([name, tensor]) => [name, tensor.data as Float32Array])),
    assign(values) {
      for (const [name, value] of values) (current.get(name)?.data as Float32Array | undefined)?.set(value);
    },
    async release() {
      if (profilePrefix) session.endProfiling();
      await session.release();
    },
  };
}

function stateTensors(program: TrainingProgram, values?: ReadonlyMap<string, Float32Array>): Map<string, Tensor> {
  const tensors = program.state.map(({ name, shape, initial }) => {
    const value = values === undefined ? initial : values.get(name);
    if (value?.length !== initial.length) {
      throw new AppError("ARTIFACT_CORRUPT", `the checkpoint has no tensor ${name} of ${initial.length} elements`);
    }
    return [name, new Tensor("float32", value.slice(), shape)] as const;
  });
  return new Map(tensors);
}

function batchTensors({ plan, batchSize, masks }: TrainingProgram, batch: TrainingBatch): Record<string, Tensor> {
  const { channels, height, width } = plan.input;
  const maskTensors = masks.map(({ name, shape }, index) => {
    const values = batch.masks[index];
    if (values === undefined) throw new AppError("INTERNAL", `the batch lacks mask ${name}`);
    return [name, new Tensor("float32", values, shape)] as const;
  });
  return {
    pixels: new Tensor("uint8", batch.pixels, [batchSize, channels, height, width]),
    targets: new Tensor("float32", batch.targets, [batchSize, plan.classes]),
    ...Object.fromEntries(maskTensors),
  };
}

function scalarTensors(scalars: Readonly<Record<string, number>>): Record<string, Tensor> {
  const entries = Object.entries(scalars);
  return Object.fromEntries(entries.map(([name, value]) => [name, new Tensor("float32", Float32Array.of(value), [])]));
}
