"""MLServer, asked by the Open Inference Protocol over gRPC, with its adaptive batching."""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from model import MAX_BATCH, PORT, load_session, probabilities


class Classifier(MLModel):
    async def load(self) -> bool:
        self.session = load_session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        pixels = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("probabilities", probabilities(self.session, pixels))
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main():
    settings = Settings(
        host="127.0.0.1",
        grpc_port=PORT,
        http_port=0,
        metrics_port=0,
        # In the process that speaks gRPC: a worker of its own would have every tensor sent to it.
        parallel_workers=0,
        debug=False,
    )
    model = ModelSettings(name="bench", implementation=Classifier, max_batch_size=MAX_BATCH, max_batch_time=0.005)
    await MLServer(settings).start([model])


asyncio.run(main())
