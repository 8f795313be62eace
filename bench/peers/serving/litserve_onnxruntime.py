"""LitServe, which collects requests into batches. Its HTTP server and its model are processes of their own."""

from typing import Annotated

import litserve
import numpy
from fastapi import Body

from model import MAX_BATCH, PORT, WORKERS, decode, load_session, probabilities


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.session = load_session()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]):
        return decode(request)

    def batch(self, inputs):
        return numpy.stack(inputs)

    def predict(self, pixels):
        return probabilities(self.session, pixels)

    def encode_response(self, output):
        return output.tolist()


if __name__ == "__main__":
    api = Classifier(max_batch_size=MAX_BATCH, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning", access_log=False)
