"""
Flask with TensorFlow, as the prototype of the paper has it: pixels as JSON, one process, an image a request. The network is made
of the description and the weights that Millrace has written, so it is the same; its call is compiled (`tf.function`).
"""

import json
import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy
import tensorflow
from flask import Flask, jsonify, request
from werkzeug.serving import WSGIRequestHandler

from model import MODEL, PORT, SIZE, THREADS


def load_model():
    with open(f"{MODEL}/layers.json") as file:
        description = json.load(file)
    if description["class_name"] != "Sequential":
        raise SystemExit(f"{description['config']['name']} is no sequence of layers, which is all that this server can build")
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3))])
    for layer in description["config"]["layers"]:
        if layer["class_name"] != "InputLayer":
            model.add(getattr(keras.layers, layer["class_name"]).from_config(essential(layer["config"])))
    weights = numpy.fromfile(f"{MODEL}/weights.bin", "float32")
    for layer in model.layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        sizes = [int(numpy.prod(shape)) for shape in shapes]
        parts = numpy.split(weights, numpy.cumsum(sizes))
        layer.set_weights([part.reshape(shape) for part, shape in zip(parts, shapes)])
        weights = parts[-1]
    return model


def essential(config):
    """Without what only training needs: Keras 3 writes it in another form."""
    training = ("initializer", "regularizer", "constraint")
    return {key: value for key, value in config.items() if value is not None and not key.endswith(training)}


tensorflow.config.threading.set_intra_op_parallelism_threads(THREADS)
tensorflow.config.threading.set_inter_op_parallelism_threads(1)
model = load_model()
app = Flask(__name__)


@tensorflow.function(input_signature=[tensorflow.TensorSpec((None, SIZE, SIZE, 3), tensorflow.float32)])
def classify(pixels):
    return model((pixels / 255 - 0.5) / 0.25, training=False)


@app.post("/predict")
def predict():
    pixels = numpy.asarray(request.get_json(), "float32")[None]
    return jsonify(classify(pixels).numpy()[0].tolist())


# Connections are kept, as every other server here keeps them.
WSGIRequestHandler.protocol_version = "HTTP/1.1"
app.run(port=PORT, threaded=True)
