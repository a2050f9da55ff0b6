"""A small data set in your bucket: noisy pictures of ten patterns, and the network that tells them.

`python digits.py` makes it and uploads it; the training scripts beside this file read it from S3,
as yours would read theirs.
"""

import functools
import io
import os

import boto3
import numpy as np

KEY = "examples/digits.npz"
SIZE, CLASSES, COUNT = 8, 10, 2000


def bucket():
    return os.environ["GPUCLOUD_S3_BUCKET"]


def make(seed=0):
    """Ten patterns of 8x8 points, each many times with noise on it."""
    random = np.random.default_rng(seed)
    patterns = random.normal(size=(CLASSES, SIZE * SIZE))
    labels = random.integers(CLASSES, size=COUNT)
    pictures = patterns[labels] + random.normal(scale=1.0, size=(COUNT, SIZE * SIZE))
    return pictures.astype("float32"), labels.astype("int64")


def upload():
    pictures, labels = make()
    data = io.BytesIO()
    np.savez_compressed(data, pictures=pictures, labels=labels)
    boto3.client("s3").put_object(Bucket=bucket(), Key=KEY, Body=data.getvalue())
    print(f"s3://{bucket()}/{KEY}: {len(labels)} pictures")


@functools.cache
def load():
    """Pictures and labels, from S3."""
    answer = boto3.client("s3").get_object(Bucket=bucket(), Key=KEY)
    data = np.load(io.BytesIO(answer["Body"].read()))
    return data["pictures"], data["labels"]


def batches(tf, batch, worker=0, workers=1):
    """An endless data set of this worker's share."""
    pictures, labels = load()
    share = tf.data.Dataset.from_tensor_slices((pictures[worker::workers], labels[worker::workers]))
    return share.shuffle(COUNT, seed=worker).repeat().batch(batch, drop_remainder=True)


def network(keras):
    """For keras and for tf_keras alike."""
    return keras.Sequential(
        [
            keras.Input((SIZE * SIZE,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(CLASSES),
        ]
    )


if __name__ == "__main__":
    upload()
