"""A real kubectl against `up`."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .support import pod, processes_with, shell
from .test_cluster_restart import up

KUBECTL = shutil.which("kubectl")
pytestmark = [
    pytest.mark.kubectl,
    pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl on the PATH"),
]


class Kubectl:
    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    async def __call__(self, *arguments: str, text: str = "") -> str:
        """Runs one command; its output, or an AssertionError with its complaint."""
        code, out, err = await self.run(*arguments, text=text)
        assert code == 0, err
        return out

    async def run(self, *arguments: str, text: str = "") -> tuple[int | None, str, str]:
        assert KUBECTL is not None
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            "--kubeconfig",
            str(self.kubeconfig),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate(text.encode())
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with up(tmp_path) as cluster:
        await cluster.line("is ready")
        yield Kubectl(tmp_path / "kubeconfig")
        await cluster.end()
    assert processes_with(str(tmp_path)) == []


async def test_a_pods_life(kubectl: Kubectl) -> None:
    script = "echo one; sleep 0.3; trap 'exit 0' TERM; echo two; while :; do sleep 0.02; done"
    await kubectl("create", "-f", "-", text=json.dumps(shell("a", script)))
    await kubectl("wait", "--for=condition=Ready", "pod/a", "--timeout=20s")
    following = asyncio.create_task(kubectl("logs", "-f", "a"))
    row = (await kubectl("get", "pods", "-o", "wide", "--no-headers")).split()
    assert row[:3] == ["a", "1/1", "Running"]
    assert row[6].startswith("node-")
    assert row[5].startswith("127.")
    described = await kubectl("describe", "pod", "a")
    for word in ("Scheduled", "Pulled", "Created", "Started", "Successfully assigned default/a"):
        assert word in described
    async with asyncio.timeout(30):
        while await kubectl("logs", "a") != "one\ntwo\n":
            await asyncio.sleep(0.05)
    await kubectl("delete", "pod", "a", "--wait=true")
    assert await following == "one\ntwo\n"


async def test_nodes_and_a_waiting_pod(kubectl: Kubectl) -> None:
    rows = (await kubectl("get", "nodes", "--no-headers")).splitlines()
    assert [row.split()[:2] for row in rows] == [["node-0", "Ready"], ["node-1", "Ready"]]
    described = await kubectl("describe", "node", "node-0")
    assert "nvidia.com/gpu.product=NVIDIA-FAKE-GPU" in described
    big = {"resources": {"limits": {"nvidia.com/gpu": "9"}}}
    await kubectl("create", "-f", "-", text=json.dumps(pod("big", "true", container=big)))
    await kubectl("wait", "--for=jsonpath={.status.conditions[0].reason}=Unschedulable", "pod/big")
    assert "2 Insufficient nvidia.com/gpu" in await kubectl("describe", "pod", "big")
    await kubectl("cordon", "node-0")
    assert "SchedulingDisabled" in await kubectl("get", "node", "node-0")


async def test_exec(kubectl: Kubectl) -> None:
    body = shell("a", "exec sleep 60")
    body["spec"]["containers"][0]["env"] = [{"name": "WORD", "value": "the pod's"}]
    await kubectl("create", "-f", "-", text=json.dumps(body))
    await kubectl("wait", "--for=condition=Ready", "pod/a", "--timeout=20s")
    script = "echo out $WORD; echo err >&2; exit 3"
    code, out, err = await kubectl.run("exec", "a", "--", "sh", "-c", script)
    assert (code, out) == (3, "out the pod's\n")
    assert err == "err\ncommand terminated with exit code 3\n"
    text = "line\n" * 50000
    assert await kubectl("exec", "-i", "a", "--", "cat", text=text) == text
    for arguments, complaint in (
        (("a", "-c", "x", "--", "true"), "container x is not valid for pod a"),
        (("none", "--", "true"), 'pods "none" not found'),
        (("a", "--", "no-such-program"), "executable file not found in $PATH"),
    ):
        code, _, err = await kubectl.run("exec", *arguments)
        assert (code, complaint in err) == (1, True), err
