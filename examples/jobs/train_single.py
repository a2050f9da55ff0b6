"""One replica, Keras 3 and `fit`:   %gpucloud run train_single.py --watch"""

import os

import digits
import keras
import tensorflow as tf

folder = os.environ["GPUCLOUD_CHECKPOINT_DIR"]
model = digits.network(keras)
model.compile(
    optimizer=keras.optimizers.Adam(0.01),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    digits.batches(tf, 64),
    epochs=5,
    steps_per_epoch=20,
    verbose=2,
    callbacks=[
        keras.callbacks.BackupAndRestore(folder + "/backup"),
        keras.callbacks.TensorBoard(os.environ["GPUCLOUD_LOG_DIR"]),
    ],
)
model.save(folder + "/model.keras")
print(f"final loss {history.history['loss'][-1]:.4f}")
