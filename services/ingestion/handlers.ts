import { create } from "@bufbuild/protobuf";
import {
  type Dataset,
  type DatasetManifest,
  type DatasetProgress,
  type DatasetSpec,
  DatasetSpecSchema,
} from "../../gen/millrace/v1/dataset_pb.ts";
import {
  DatasetPreparedSchema,
  DatasetProgressedSchema,
  DatasetStartedSchema,
  RunRequestedSchema,
} from "../../gen/millrace/v1/events_pb.ts";
import type { ArtifactStore } from "../../lib/artifacts/store.ts";
import { progressPublisher } from "../../lib/bus/progress-publisher.ts";
import type { Stage } from "../../lib/bus/stage.ts";
import { readManifest } from "../../lib/images/manifest.ts";
import { prepareDataset } from "../../lib/images/prepare-dataset.ts";
import { withSpan } from "../../lib/telemetry/spans.ts";

export interface IngestionDependencies {
  readonly artifacts: ArtifactStore;
  /** Where downloads are kept between runs. */
  readonly cacheFolder: string;
}

/** The work of the service: the same for an event and for a request. */
export interface Ingestion {
  /** Prepares a data set and returns it. The same specification always gives the same digest. */
  prepare(spec: DatasetSpec, listeners: PrepareListeners): Promise<Dataset>;
  /** The manifest of a prepared data set. */
  describe(digest: string): Promise<DatasetManifest>;
}

export interface PrepareListeners {
  readonly onProgress: (progress: DatasetProgress) => void;
  readonly signal: AbortSignal;
}

export function createIngestion({ artifacts, cacheFolder }: IngestionDependencies): Ingestion {
  return {
    prepare: (spec, { onProgress, signal }) =>
      withSpan("prepare dataset", { attributes: { "millrace.dataset.name": spec.source } }, async (span) => {
        const dataset = await prepareDataset(spec, { artifacts, cacheFolder, signal, onProgress });
        span.setAttributes({
          "millrace.dataset.digest": dataset.digest,
          "millrace.images.count": dataset.trainImages + dataset.testImages,
          "millrace.images.skipped": dataset.skippedImages,
        });
        return dataset;
      }),
    describe: (digest) => readManifest(digest, { artifacts }),
  };
}

/** The first stage of a run: from "run.requested" to "dataset.prepared". */
export function ingestionStage(ingestion: Ingestion): Stage<typeof RunRequestedSchema> {
  return {
    name: "ingestion",
    consumes: RunRequestedSchema,
    outcomes: [DatasetPreparedSchema],
    handle: async ({ message: { spec: runSpec } }, context) => {
      const startedMs = performance.now();
      const spec = runSpec?.dataset ?? create(DatasetSpecSchema);
      await context.publish(create(DatasetStartedSchema, { spec }));
      const reports = progressPublisher(context);
      const onProgress = (progress: DatasetProgress) =>
        reports.publish(create(DatasetProgressedSchema, { progress }), `${progress.phase}:${progress.done}`);
      const dataset = await ingestion.prepare(spec, { onProgress, signal: context.signal });
      await reports.settled();
      return create(DatasetPreparedSchema, {
        dataset,
        durationSeconds: (performance.now() - startedMs) / 1000,
        ...(runSpec === undefined ? {} : { spec: runSpec }),
      });
    },
  };
}
