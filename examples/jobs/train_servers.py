"""A chief, workers and parameter servers, with a loop of your own, under Keras 3:

%gpucloud run train_servers.py --workers 2 --ps 1 --watch

ParameterServerStrategy: the chief hands steps out to the workers, each of which computes on its own
and changes the weights on the parameter servers. A worker that is lost comes back by itself; when
the chief or a parameter server is lost, all go on from the checkpoint.
"""

import os

import digits
import keras
import tensorflow as tf

STEPS, BATCH = int(os.environ.get("STEPS", "200")), 32
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
coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
with strategy.scope():
    model = digits.network(keras)
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    step = tf.Variable(0, dtype=tf.int64)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
checkpoint = tf.train.Checkpoint(step=step, model=model, optimizer=optimizer)

# The parameter servers hold the variables, but only the chief's folder is kept: so the chief
# reads and writes.
options = tf.train.CheckpointOptions(experimental_io_device="/job:chief")
folder = os.environ["GPUCLOUD_CHECKPOINT_DIR"]
manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
if manager.latest_checkpoint:
    checkpoint.restore(manager.latest_checkpoint, options=options)
    print(f"goes on from step {int(step)}, restart {os.environ['GPUCLOUD_RESTART']}", flush=True)


@tf.function
def train(steps):
    def one(pictures, labels):
        with tf.GradientTape() as tape:
            losses = loss_of(labels, model(pictures, training=True))
            loss = tf.nn.compute_average_loss(losses, global_batch_size=BATCH)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        step.assign_add(1)
        return loss

    return strategy.reduce("SUM", strategy.run(one, next(steps)), axis=None)


digits.load()  # now: what follows is traced into graphs, which cannot read S3


@tf.function
def each_worker():
    return strategy.distribute_datasets_from_function(lambda context: digits.batches(tf, BATCH))


steps = iter(coordinator.create_per_worker_dataset(each_worker))
writer = tf.summary.create_file_writer(os.environ["GPUCLOUD_LOG_DIR"])
loss = None
while step < STEPS:
    losses = [coordinator.schedule(train, args=(steps,)) for _ in range(20)]
    coordinator.join()
    loss = sum(float(value.fetch()) for value in losses) / len(losses)
    with writer.as_default():
        tf.summary.scalar("loss", loss, step=int(step))
    writer.flush()
    manager.save(int(step), options=options)
    print(f"step {int(step)} loss {loss:.4f}", flush=True)
print(f"final loss {loss:.4f}")
