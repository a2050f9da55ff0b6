"""pods/exec: from a client's WebSocket through the API server to the kubelet and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from tests.localcluster.conftest import admin_session

from .support import Cluster, everything, mount, pod, processes_with, shell

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
EXEC = "/api/v1/namespaces/default/pods/{}/exec"
SUCCESS = {"metadata": {}, "status": "Success"}


@pytest.fixture
async def cluster(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with everything(apiserver, tmp_path) as cluster:
        yield cluster
    assert processes_with(str(tmp_path)) == []


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with admin_session(cluster.server) as session:
        yield session


class Client:
    """One exec's connection and all that has come over it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.output = {1: b"", 2: b"", 3: b""}

    async def send(self, channel: int, data: bytes) -> None:
        await self.socket.send_bytes(bytes([channel]) + data)

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(15):
            while text not in self.output[1]:
                self._take(await self.socket.receive())

    async def end(self) -> Any:
        """How it ended, as channel 3 says."""
        async with asyncio.timeout(15):
            async for message in self.socket:
                self._take(message)
        return json.loads(self.output[3])

    def _take(self, message: aiohttp.WSMessage) -> None:
        assert message.type is aiohttp.WSMsgType.BINARY
        self.output[message.data[0]] += message.data[1:]


async def connect(
    http: aiohttp.ClientSession, name: str, *command: str, protocol: str = V5, **query: str
) -> Client:
    params = [("command", part) for part in command] + list(query.items())
    socket = await http.ws_connect(EXEC.format(name), params=params, protocols=[protocol])
    assert socket.protocol == protocol
    return Client(socket)


def code(status: Any) -> str:
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode"), status
    (cause,) = status["details"]["causes"]
    assert cause["reason"] == "ExitCode"
    return str(cause["message"])


async def vanish(marker: str) -> None:
    async with asyncio.timeout(15):
        while processes_with(marker):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("protocol", [V4, V5])
async def test_output_and_exit_code(
    cluster: Cluster, http: aiohttp.ClientSession, protocol: str
) -> None:
    await cluster.started(shell("a", "exec sleep 60"))
    client = await connect(
        http, "a", "sh", "-c", "echo out; echo err >&2; exit 3", protocol=protocol
    )
    assert code(await client.end()) == "3"
    assert (client.output[1], client.output[2]) == (b"out\n", b"err\n")
    assert client.socket.close_code == aiohttp.WSCloseCode.OK
    client = await connect(http, "a", "sh", "-c", "kill -TERM $$", protocol=protocol)
    assert code(await client.end()) == "143"
    client = await connect(http, "a", "echo", "x", protocol=protocol, stdout="false")
    assert (await client.end(), client.output[1]) == (SUCCESS, b"")


async def test_fast_output_is_whole(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    await cluster.started(shell("a", "exec sleep 60"))
    client = await connect(http, "a", "head", "-c", "3000000", "/dev/zero")
    assert await client.end() == SUCCESS
    assert len(client.output[1]) == 3000000
    # What is left running may still write.
    client = await connect(http, "a", "sh", "-c", "(sleep 0.3; echo late) & echo early")
    assert await client.end() == SUCCESS
    assert client.output[1] == b"early\nlate\n"


async def test_stdin_and_its_end(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    await cluster.started(shell("a", "exec sleep 60"))
    client = await connect(http, "a", "cat", stdin="true")
    await client.send(0, b"one ")
    await client.until(b"one ")
    await client.send(4, b'{"Width":80,"Height":24}')
    await client.send(0, b"y" * 300000)
    await client.send(255, b"\0")
    assert await client.end() == SUCCESS
    assert client.output[1] == b"one " + b"y" * 300000
    client = await connect(http, "a", "true", stdin="true")
    await client.send(0, b"nobody reads this")
    assert await client.end() == SUCCESS
    client = await connect(http, "a", "cat")
    assert await client.end() == SUCCESS, "without stdin there is nothing to read"


async def test_in_version_4_stdin_ends_with_the_connection(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    await cluster.started(shell("a", "until test -s got; do sleep 0.02; done; cat got"))
    script = "cat > part; mv part got"
    client = await connect(http, "a", "sh", "-c", script, protocol=V4, stdin="true")
    await client.socket.send_str("\0all of it")
    await client.socket.close()
    await cluster.phase("a", "Succeeded")
    assert await cluster.logs("a") == "all of it"


async def test_it_is_the_containers_world(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    body = shell("a", "echo data > /v/file; pwd; exec sleep 60", **mount("/v", {"emptyDir": {}}))
    body["spec"]["containers"][0]["env"] = [{"name": "WORD", "value": "from the pod"}]
    await cluster.started(body)
    client = await connect(http, "a", "sh", "-c", "cat /v/file; echo $WORD; pwd; echo $HOME; umask")
    assert await client.end() == SUCCESS
    data, word, cwd, home, umask = client.output[1].decode().splitlines()
    assert (data, word, home, umask) == ("data", "from the pod", cwd, "0022")
    assert (await cluster.logs("a")).strip() == cwd


async def test_it_ends_with_its_connection(
    cluster: Cluster, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await cluster.started(shell("a", "exec sleep 60"))
    marker = f"{tmp_path}/marker"
    script = "trap '' HUP TERM; setsid sleep 61 & sleep 62 & echo up; wait"
    client = await connect(http, "a", "sh", "-c", script, marker)
    await client.until(b"up\n")
    assert processes_with(marker)
    # No farewell: as from a client that was killed.
    transport = client.socket._response.connection.transport  # type: ignore[union-attr]
    transport.abort()  # type: ignore[union-attr]
    await vanish(marker)
    assert (await cluster.phase("a", "Running"))["status"]["phase"] == "Running"


async def test_it_ends_with_the_pod(
    cluster: Cluster, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await cluster.started(shell("a", "exec sleep 60"))
    marker = f"{tmp_path}/marker"
    client = await connect(http, "a", "sh", "-c", "echo up; sleep 61; true", marker)
    await client.until(b"up\n")
    assert processes_with(marker)
    await cluster.delete("a", grace=0)
    assert code(await client.end()) == "137"
    await vanish(marker)


async def refusal(http: aiohttp.ClientSession, name: str, query: str) -> tuple[int, str]:
    headers = {"Upgrade": "SPDY/3.1", "Connection": "Upgrade"}
    async with http.post(f"{EXEC.format(name)}?{query}", headers=headers) as response:
        answer = await response.json()
    assert (answer["kind"], answer["code"]) == ("Status", response.status)
    return response.status, answer["message"]


async def test_refusals(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    await cluster.started(shell("a", "exec sleep 60"))
    await cluster.run(pod("done", "true"))
    for name, query, status, words in (
        ("none", "command=true", 404, 'pods "none" not found'),
        ("a", "command=true&container=x", 400, "container x is not valid for pod a"),
        ("a", "", 400, "you must specify at least 1 command"),
        ("a", "command=true&tty=true", 501, "kubectl exec -t"),
        ("a", "command=true&stdout=0&stderr=0", 400, "at least 1 of stdin, stdout, stderr"),
        ("a", "command=true", 400, "not SPDY/3.1"),
        ("done", "command=true", 400, "completed pod; current phase is Succeeded"),
    ):
        found, message = await refusal(http, name, query)
        assert (found, words in message) == (status, True), message
    with pytest.raises(aiohttp.WSServerHandshakeError, match="400"):
        await http.ws_connect(f"{EXEC.format('a')}?command=true", protocols=["channel.k8s.io"])
    client = await connect(http, "a", "no-such-program")
    assert 'exec: "no-such-program": executable file not found' in (await client.end())["message"]
    http.headers["Authorization"] = "Bearer wrong"
    assert (await refusal(http, "a", "command=true"))[0] == 401


async def test_a_pod_that_has_not_started(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    await cluster.create(pod("far", "true", nodeSelector={"no": "such-node"}))
    assert await refusal(http, "far", "command=true") == (
        400,
        "pod far does not have a host assigned",
    )
    missing = {"envFrom": [{"secretRef": {"name": "none"}}]}
    await cluster.create(pod("b", "true", container=missing))
    await cluster.until("b", lambda p: p["status"].get("containerStatuses"))
    assert await refusal(http, "b", "command=true") == (
        400,
        'container "c" in pod "b" is not running',
    )
