"""What the servers beside this file have in common: their settings, the model, and how an image is decoded for it."""

import io
import os

import numpy
import onnxruntime
from PIL import Image

MODEL = os.environ["BENCH_MODEL"]
PORT = int(os.environ["BENCH_PORT"])
THREADS = int(os.environ["BENCH_THREADS"])
WORKERS = int(os.environ["BENCH_WORKERS"])
SIZE = 32
MAX_BATCH = 32
"""As the prediction service has it."""


def load_session():
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(f"{MODEL}/model.onnx", options, providers=["CPUExecutionProvider"])


def decode(jpeg):
    """uint8 [C, H, W]."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    if image.size != (SIZE, SIZE):
        image = image.resize((SIZE, SIZE))
    return numpy.asarray(image).transpose(2, 0, 1)


def probabilities(session, pixels):
    """float32 [N, classes] of uint8 [N, C, H, W]."""
    return session.run(["probabilities"], {"pixels": numpy.ascontiguousarray(pixels)})[0]
