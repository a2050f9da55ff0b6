"""One embedded S3 server for all tests of jobs' user side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpucloud_labext.jobs.store import Store
from tests.labext.contents import servers

from . import replicas


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Store]:
    with servers.running(servers.rclone_store(tmp_path_factory.mktemp("jobs-s3"))) as server:
        yield server


@pytest.fixture
def bucket(s3: servers.Store) -> Store:
    return replicas.store_of(s3)


@pytest.fixture
def make_job(s3: servers.Store, tmp_path: Path) -> Iterator[Callable[..., replicas.Job]]:
    """Makes and starts jobs; what they left running is ended."""
    made: list[replicas.Job] = []

    def make(script: str, start: bool = True, **options: Any) -> replicas.Job:
        folder = tmp_path / f"job{len(made)}"
        files = {"train.py": script, **options.pop("files", {})}
        command = ["python", "train.py", *options.pop("args", [])]
        job = replicas.Job(s3, folder, files, command, **options)
        made.append(job)
        return job.start() if start else job

    yield make
    for job in made:
        for replica in job.replicas.values():
            replica.end()
