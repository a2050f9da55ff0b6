"""The `gpucloud` command as a whole; its sub-commands are tested in their rooms."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gpucloud_spawner.cli import main


def test_run_loads_nothing_of_the_hub_s_side() -> None:
    """It only watches over other processes, and stays for as long as they do."""
    script = (
        "import sys; sys.argv = ['gpucloud', 'run', '--help']\n"
        "import gpucloud_spawner.run, gpucloud_spawner.cli as cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'sqlalchemy', 'alembic', 'jupyterhub', 'kubernetes_asyncio', 'aiohttp'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True)


def test_a_command_that_is_none_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])
    said = capsys.readouterr().err
    assert all(name in said for name in ("run", "db", "usage", "s3"))
