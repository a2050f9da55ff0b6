"""Several workers in step, with a loop of your own, under Keras 3:

%gpucloud run train_mirrored.py --workers 2 --gpus 1 --watch

MultiWorkerMirroredStrategy: every worker computes on its share of the data, and all have the same
weights after every step. A worker that is lost is started again, and all go on from the checkpoint.
"""

import os
import tempfile

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow

import digits  # noqa: E402
import keras  # noqa: E402

STEPS, BATCH = int(os.environ.get("STEPS", "100")), 32  # of each worker
worker, workers = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

with strategy.scope():
    model = digits.network(keras)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
step = tf.Variable(0, dtype=tf.int64)
checkpoint = tf.train.Checkpoint(step=step, model=model, optimizer=optimizer)

# every worker takes part in saving; what the first one writes is kept
folder = os.environ["GPUCLOUD_CHECKPOINT_DIR"]
own = folder if worker == 0 else tempfile.mkdtemp()
manager = tf.train.CheckpointManager(checkpoint, own, max_to_keep=2)
newest = tf.train.latest_checkpoint(folder)
if newest:
    checkpoint.restore(newest)
    print(f"goes on from step {int(step)}, restart {os.environ['GPUCLOUD_RESTART']}", flush=True)

data = strategy.distribute_datasets_from_function(
    lambda context: digits.batches(tf, BATCH, worker, workers)
)


@tf.function
def train(pictures, labels):
    def one(pictures, labels):
        with tf.GradientTape() as tape:
            losses = loss_of(labels, model(pictures, training=True))
            # the optimizer adds the gradients of all workers up
            loss = tf.nn.compute_average_loss(losses, global_batch_size=BATCH * workers)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return strategy.reduce("SUM", strategy.run(one, (pictures, labels)), axis=None)


writer = tf.summary.create_file_writer(os.environ["GPUCLOUD_LOG_DIR"])
steps, loss = iter(data), None
while step < STEPS:
    loss = float(train(*next(steps)))
    step.assign_add(1)
    if step % 10 == 0:
        with writer.as_default():
            tf.summary.scalar("loss", loss, step=step)
        writer.flush()
        manager.save(int(step))
        print(f"step {int(step)} loss {loss:.4f}", flush=True)
print(f"final loss {loss:.4f}")
