"""Several workers in step with `fit`, which needs tf_keras (Keras 2):

%gpucloud run train_mirrored_fit.py --workers 2 --env TF_USE_LEGACY_KERAS=1 --watch

Keras 3's own `fit` does not run under MultiWorkerMirroredStrategy.
"""

import os

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow

import digits  # noqa: E402
import tf_keras as keras  # noqa: E402

BATCH = 64  # of all workers together
with strategy.scope():
    model = digits.network(keras)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

options = tf.data.Options()
# every worker shuffles the whole set in its own order
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
per_worker = BATCH // strategy.num_replicas_in_sync
data = digits.batches(tf, per_worker, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
history = model.fit(
    data.with_options(options),
    epochs=int(os.environ.get("EPOCHS", "5")),
    steps_per_epoch=20,
    verbose=2,
    callbacks=[
        # keeps the epochs, and goes on with the next one after a restart
        keras.callbacks.BackupAndRestore(os.environ["GPUCLOUD_CHECKPOINT_DIR"]),
        keras.callbacks.TensorBoard(os.environ["GPUCLOUD_LOG_DIR"]),
    ],
)
print(f"final loss {history.history['loss'][-1]:.4f}")
