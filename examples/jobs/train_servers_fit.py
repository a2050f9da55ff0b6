"""A chief, workers and parameter servers with `fit`, which needs tf_keras (Keras 2):

%gpucloud run train_servers_fit.py --workers 2 --ps 1 --env TF_USE_LEGACY_KERAS=1 --watch

Keras 3's own `fit` does not run under ParameterServerStrategy.
"""

import os

import digits
import tensorflow as tf
import tf_keras as keras

BATCH = 32
cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver()
if cluster.task_type in ("worker", "ps"):
    # they serve until gpucloud ends them, when the chief has ended
    tf.distribute.Server(
        cluster.cluster_spec(),
        job_name=cluster.task_type,
        task_index=cluster.task_id,
        protocol="grpc",
    ).join()

strategy = tf.distribute.ParameterServerStrategy(cluster)
with strategy.scope():
    model = digits.network(keras)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=10,
    )

# The parameter servers hold the variables, but only the chief's folder is kept: so the chief
# reads and writes.
options = tf.train.CheckpointOptions(experimental_io_device="/job:chief")
weights = os.environ["GPUCLOUD_CHECKPOINT_DIR"] + "/weights"
if tf.train.latest_checkpoint(os.environ["GPUCLOUD_CHECKPOINT_DIR"]):
    model.load_weights(weights, options=options)
    print(f"goes on, restart {os.environ['GPUCLOUD_RESTART']}", flush=True)
history = model.fit(
    keras.utils.experimental.DatasetCreator(lambda context: digits.batches(tf, BATCH)),
    epochs=int(os.environ.get("EPOCHS", "5")),
    steps_per_epoch=40,
    verbose=2,
    callbacks=[
        keras.callbacks.ModelCheckpoint(weights, save_weights_only=True, options=options),
        keras.callbacks.TensorBoard(os.environ["GPUCLOUD_LOG_DIR"], write_graph=False),
    ],
)
print(f"final loss {history.history['loss'][-1]:.4f}")
