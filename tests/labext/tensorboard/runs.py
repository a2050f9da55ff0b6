"""Real event files: one of every kind of data that a standard tab of TensorBoard draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboardX import SummaryWriter
from tensorboardX.event_file_writer import EventFileWriter

STEPS = 20


def scalars(folder: Path, steps: int = STEPS, start: int = 0) -> None:
    """A run with one chart."""
    with SummaryWriter(str(folder)) as writer:
        for step in range(start, start + steps):
            writer.add_scalar("loss", 1 / (step + 1), step)


def everything(folder: Path) -> None:
    """A run for every standard tab."""
    random = np.random.default_rng(0)
    with SummaryWriter(str(folder / "train")) as writer:
        for step in range(STEPS):
            writer.add_scalar("loss/train", 1 / (step + 1), step)
            writer.add_histogram("weights", random.normal(step / 10, 1, 500), step)
        picture = np.linspace(0, 255, 3 * 32 * 32).reshape(3, 32, 32).astype(np.uint8)
        writer.add_image("picture", picture, 1)
        writer.add_text("note", "**bold** words of a run", 1)
        truth = random.integers(0, 2, 200)
        writer.add_pr_curve("curve", truth, np.clip(truth * 0.5 + random.random(200) * 0.5, 0, 1))
        writer.add_embedding(
            random.normal(size=(50, 8)), metadata=[f"point {n}" for n in range(50)], tag="points"
        )
    for rate in (0.1, 0.01):
        with SummaryWriter(str(folder / f"rate-{rate}")) as writer:
            writer.add_hparams({"rate": rate, "layers": 2}, {"accuracy": 1 - rate}, name="trial")
    graph(folder / "train")


def graph(folder: Path) -> None:
    """A model of three operations."""
    model = GraphDef()
    model.node.add(name="input", op="Placeholder")
    model.node.add(name="dense/weights", op="VariableV2")
    model.node.add(name="dense/matmul", op="MatMul", input=["input", "dense/weights"])
    writer = EventFileWriter(str(folder), filename_suffix=".graph")
    # the writer's own protobuf classes are others; bytes are the same to both
    from tensorboardX.proto.event_pb2 import Event as ItsEvent

    event = Event(graph_def=model.SerializeToString())
    writer.add_event(ItsEvent.FromString(event.SerializeToString()))
    writer.close()


def blobs(folder: Path, mib: int, picture_kib: int = 256) -> None:
    """A big run: pictures that do not compress, and a chart beside them."""
    random = np.random.default_rng(0)
    side = int((picture_kib * 1024 / 3) ** 0.5)
    with SummaryWriter(str(folder)) as writer:
        for step in range(mib * 1024 // picture_kib):
            noise = random.integers(0, 256, (3, side, side), dtype=np.uint8)
            writer.add_image("noise", noise, step)
            writer.add_scalar("loss", 1 / (step + 1), step)
