"""The example notebook, run as a user runs it, on a real store."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .conftest import Pod

np = pytest.importorskip("numpy", reason="comes with TensorFlow (extra: tensorflow)")

EXAMPLE = Path(__file__).parents[3] / "examples" / "s3"


def test_the_data_set_is_what_its_generator_draws() -> None:
    drawn = runpy.run_path(str(EXAMPLE / "make_digits.py"))["parts"]()
    assert {f"{name}.npz" for name in drawn} == {p.name for p in (EXAMPLE / "digits").iterdir()}
    for name, (pictures, labels) in drawn.items():
        with np.load(EXAMPLE / "digits" / f"{name}.npz") as kept:
            assert np.array_equal(kept["pictures"], pictures)
            assert np.array_equal(kept["labels"], labels)


@pytest.mark.timeout(900)
async def test_the_notebook_runs_from_its_first_cell_to_its_last(pod: Pod, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed (extra: tensorflow)")
    home = tmp_path / "home"
    shutil.copytree(EXAMPLE, home)
    notebook = nbformat.read(home / "digits.ipynb", 4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "kept without outputs"
    client = NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(home)}})
    await client.async_execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    found = re.search(r"right on ([\d.]+)% of pictures", printed)
    assert found and float(found[1]) > 85, printed[-2000:]
    assert "examples/models/digits.keras" in pod.names()
    assert len(pod.names()) == 5
