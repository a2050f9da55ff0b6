"""The examples with `fit`, and what Keras 3 says instead: real TensorFlow, replicas as processes.

Those with a loop of their own are trained by tests/e2e/test_jobs.py, on a whole gpucloud.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpucloud_labext.jobs.store import Store
from gpucloud_labext.replica.hints import KERAS_FIT
from tests.labext.contents.servers import wait_for
from tests.labext.jobs.conftest import *  # noqa: F403 (its fixtures)
from tests.labext.jobs.replicas import Job

pytestmark = pytest.mark.timeout(900)
EXAMPLES = Path(__file__).parents[2] / "examples" / "jobs"
PATIENCE = 400  # seconds for the imports and the training of all replicas
GOOD_LOSS = 0.05  # an untrained network is at 2.3
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
LEGACY = {**QUIET, "TF_USE_LEGACY_KERAS": "1"}


@pytest.fixture
def run(make_job: Callable[..., Job], bucket: Store) -> Callable[..., Job]:
    """Runs a script beside the examples' data, which are in the bucket."""
    random = np.random.default_rng(0)
    patterns = random.normal(size=(10, 64))
    labels = random.integers(10, size=2000)
    pictures = (patterns[labels] + random.normal(size=(2000, 64))).astype("float32")
    data = io.BytesIO()
    np.savez_compressed(data, pictures=pictures, labels=labels)
    bucket.put("examples/digits.npz", data.getvalue())

    def run(script: str, roles: dict[str, int], **environment: str) -> Job:
        files = {"digits.py": (EXAMPLES / "digits.py").read_text()}
        job = make_job(script, start=False, files=files, roles=roles)
        return job.start(**environment)

    return run


def text_of(name: str) -> str:
    return (EXAMPLES / name).read_text()


def loss(job: Job, label: str) -> float:
    return float(re.findall(r"final loss ([0-9.]+)", job.log(label))[0])


def test_fit_of_tf_keras_on_mirrored_workers(run: Callable[..., Job]) -> None:
    script = text_of("train_mirrored_fit.py")
    job = run(script, {"worker": 2}, EPOCHS="2", **LEGACY)
    assert [job[label].wait(PATIENCE) for label in job.replicas] == [0, 0]
    assert loss(job, "worker-0") == loss(job, "worker-1") < GOOD_LOSS
    # `fit` keeps the curves of the first worker; those of others it removes at its end
    assert "worker-0" in {board.split("/")[0] for board in job.keys("tensorboard/")}


def test_fit_of_tf_keras_on_parameter_servers(run: Callable[..., Job]) -> None:
    script = text_of("train_servers_fit.py")
    job = run(script, {"chief": 1, "worker": 2, "ps": 1}, EPOCHS="2", **LEGACY)
    assert [job[label].wait(PATIENCE) for label in job.replicas] == [0, 0, 0, 0]
    assert loss(job, "chief-0") < GOOD_LOSS
    # written by the chief alone, although the parameter server holds the variables
    assert "checkpoint" in job.keys("checkpoints/")
    others = [job[label].home.rglob("*.data-*") for label in ("worker-0", "worker-1", "ps-0")]
    assert not [path for found in others for path in found]


def test_fit_of_keras_3_is_answered_with_a_hint(run: Callable[..., Job]) -> None:
    script = text_of("train_mirrored_fit.py").replace("import tf_keras as keras", "import keras")
    job = run(script, {"worker": 2}, **QUIET)

    def ended() -> list[str]:
        return [label for label, r in job.replicas.items() if r.process and r.process.poll() == 1]

    # the other one may wait for it, as for any that was lost
    first = wait_for(ended, "the end of one", PATIENCE)[0]
    assert job[first].last_words["hint"] == KERAS_FIT
    assert "hint: " in job.log(first)
