"""Training steps of Keras on TensorFlow. Arguments: the network (paper or stack), then graph or jitted (XLA)."""

import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import tensorflow as tf
from keras import layers

from peer import BATCH, CLASSES, SIZE, THREADS, serve


def paper():
    """lib/nn/networks/paper.ts."""
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3))])
    for filters, dropout in ((64, 0.2), (128, 0.3), (256, 0.4)):
        for _ in range(2):
            penalty = keras.regularizers.L2(1e-4)
            model.add(layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_regularizer=penalty))
            model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.MaxPooling2D(2))
        model.add(layers.Dropout(dropout))
    model.add(layers.Flatten())
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.BatchNormalization(momentum=0.9))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(CLASSES))
    return model


def stack():
    """bench/nn/networks.ts."""
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3))])
    for _ in range(6):
        model.add(layers.Conv2D(64, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(CLASSES))
    return model


def main(network, form):
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    model = {"paper": paper, "stack": stack}[network]()
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-7),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=form == "jitted",
    )
    images = tf.random.normal((BATCH, SIZE, SIZE, 3))
    labels = tf.random.uniform((BATCH,), maxval=CLASSES, dtype=tf.int32)
    serve(f"Keras {keras.__version__} on TensorFlow {tf.__version__}", lambda: float(model.train_on_batch(images, labels)))


main(*sys.argv[1:])
