"""Pods as real processes on a real API server: environment, volumes, devices, starts."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import sys
from pathlib import Path

import pytest

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import ApiError
from gpucloud_spawner.localcluster.controllers import Controllers

from .support import (
    NAMESPACE,
    POD_IP,
    SERVE,
    Cluster,
    Obj,
    bound_claim,
    condition,
    everything,
    first_line,
    gpus,
    is_ready,
    mount,
    pod,
    shell,
    state_of,
    terminated,
    waiting,
)

PRINT_ENV = "import json, os; print(json.dumps(dict(os.environ)))"


def secret(name: str, **values: str) -> Obj:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def config_map(name: str, **values: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": values}


# Environment


async def test_the_environment_is_the_pods_and_nothing_else(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAKED", "secret of the one who started the cluster")
    await cluster.create(secret("s", KEY="hidden"))
    await cluster.create(config_map("m", one="1", two="2"))
    env = [
        {"name": "LITERAL", "value": "a b"},
        POD_IP,
        {"name": "URL", "value": "http://$(POD_IP):8888/$$(POD_IP)/$(NOPE)"},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "KEY"}}},
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "one"}}},
        {
            "name": "OPTIONAL",
            "valueFrom": {"configMapKeyRef": {"name": "no", "key": "x", "optional": True}},
        },
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    container = {
        "env": env,
        "envFrom": [{"prefix": "CM_", "configMapRef": {"name": "m"}}],
        "resources": {"limits": {"cpu": "2"}},
    }
    a_pod = pod("a", sys.executable, "-c", PRINT_ENV, container=container, labels={"app": "nb"})
    seen = json.loads(await cluster.output(a_pod))
    ended = await cluster.client.get("pods", "a", NAMESPACE)
    address = ended["status"]["podIP"]
    host = ipaddress.ip_address(ended["status"]["hostIP"])
    assert host.is_loopback
    assert ipaddress.ip_address(address) in ipaddress.ip_network(f"{host}/16", strict=False)
    assert seen.pop("PATH").startswith(str(Path(sys.executable).parent))
    for name in ("HOME", "GPUCLOUD_MOUNTS", "GPUCLOUD_TERMINATION_LOG"):
        assert Path(seen.pop(name)).is_relative_to(cluster.data)
    seen.pop("LC_CTYPE", None)  # Python sets it for itself
    assert seen == {
        "LANG": "C.UTF-8",
        "HOSTNAME": "a",
        "LITERAL": "a b",
        "POD_IP": address,
        "URL": f"http://{address}:8888/$(POD_IP)/$(NOPE)",
        "KEY": "hidden",
        "ONE": "1",
        "CM_one": "1",
        "CM_two": "2",
        "NODE": "node-0",
        "APP": "nb",
        "CPU": "2",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "CUDA_VISIBLE_DEVICES": "",
    }


async def test_a_missing_secret_is_waited_for(cluster: Cluster) -> None:
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "late", "key": "KEY"}}}]
    await cluster.create(shell("a", "echo $KEY", container={"env": env}))
    obj = await cluster.until("a", waiting)
    obj = await cluster.until("a", lambda p: "Config" in waiting(p).get("reason", ""))
    assert waiting(obj) == {
        "reason": "CreateContainerConfigError",
        "message": 'secret "late" not found',
    }
    assert (await cluster.event("a", "Failed"))["message"] == 'Error: secret "late" not found'
    await cluster.create(secret("late", OTHER="x"))
    await cluster.until("a", lambda p: "couldn't find key KEY" in waiting(p).get("message", ""))
    await cluster.client.patch("secrets", "late", secret("late", KEY="here"), NAMESPACE)
    await cluster.phase("a", "Succeeded")
    assert await cluster.logs("a") == "here\n"


# Volumes


async def test_a_claims_files_outlive_the_pod(cluster: Cluster) -> None:
    claim, status = bound_claim("home-a")
    await cluster.create(claim)
    source = {"persistentVolumeClaim": {"claimName": "home-a"}}
    home = mount("/home/jovyan", source)
    await cluster.create(shell("one", "pwd; echo hello > note; echo ~", **home))
    # Not bound yet: it waits, without crying.
    await cluster.until("one", lambda p: waiting(p).get("reason") == "ContainerCreating")
    await cluster.client.patch_status("persistentvolumeclaims", "home-a", status, NAMESPACE)
    await cluster.phase("one", "Succeeded")
    where, tilde = (await cluster.logs("one")).split()
    assert where == tilde
    assert Path(where).is_relative_to(cluster.data / "kubelet" / "volumes" / NAMESPACE)
    await cluster.delete("one")
    await cluster.gone("one")
    assert await cluster.output(shell("two", "cat /home/jovyan/note", **home)) == "hello\n"
    sub = mount("/home/jovyan", source, subPath="inner")
    assert await cluster.output(shell("three", "touch x; ls; cat ../note", **sub)) == "x\nhello\n"


async def test_a_deleted_volumes_files_are_removed(apiserver: APIServer, tmp_path: Path) -> None:
    home = mount("/home/jovyan", {"persistentVolumeClaim": {"claimName": "home"}})
    async with everything(apiserver, tmp_path) as cluster, Controllers(cluster.client):
        await cluster.create(bound_claim("home")[0])
        obj = await cluster.run(shell("a", "touch here", **home))
        claim = await cluster.client.get("persistentvolumeclaims", "home", NAMESPACE)
        directory = tmp_path / "kubelet/volumes" / NAMESPACE / claim["metadata"]["uid"]
        assert (directory / "here").exists()
        await cluster.client.delete("persistentvolumeclaims", "home", NAMESPACE)
        await cluster.delete(obj["metadata"]["name"])
        async with asyncio.timeout(10):
            while directory.exists():
                await asyncio.sleep(0.02)


async def test_secret_config_and_downward_volumes(cluster: Cluster) -> None:
    await cluster.create(config_map("m", a="1", b="2"))
    volumes = [
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "m", "configMap": {"name": "m", "items": [{"key": "b", "path": "sub/b"}]}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"secret": {"name": "s"}},
                    {
                        "downwardAPI": {
                            "items": [
                                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
                            ]
                        }
                    },
                ]
            },
        },
        {"name": "none", "secret": {"secretName": "missing", "optional": True}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts = [
        {"name": "s", "mountPath": "/etc/ssl/mine"},
        {"name": "m", "mountPath": "/home/jovyan/conf"},
        {"name": "all", "mountPath": "/all"},
        {"name": "none", "mountPath": "/none"},
        {"name": "tmp", "mountPath": "/scratch"},
        {"name": "s", "mountPath": "/single", "subPath": "key"},
    ]
    script = (
        "cat /etc/ssl/mine/key conf/sub/b /all/key /all/labels /single; stat -Lc %a "
        "/etc/ssl/mine/key; ls /none; echo x > /scratch/x; cat /scratch/x; "
        "cat $GPUCLOUD_MOUNTS/etc/ssl/mine/key"
    )
    a_pod = shell("a", script, volumes=volumes, container={"volumeMounts": mounts})
    a_pod["metadata"]["labels"] = {"app": "x"}
    await cluster.create(a_pod)
    event = await cluster.event("a", "FailedMount")
    assert event["message"] == 'MountVolume.SetUp failed for volume "s" : secret "s" not found'
    await cluster.create(secret("s", key="K\n"))
    await cluster.phase("a", "Succeeded")
    assert await cluster.logs("a") == 'K\n2K\napp="x"K\n400\nx\nK\n'


async def test_a_changed_secret_reaches_the_running_pod(cluster: Cluster) -> None:
    await cluster.create(secret("s", key="old"))
    script = "cat /s/key; while [ $(cat /s/key) = old ]; do sleep 0.05; done; cat /s/key"
    await cluster.started(shell("a", script, **mount("/s", {"secret": {"secretName": "s"}})))
    await cluster.client.patch("secrets", "s", secret("s", key="new"), NAMESPACE)
    await cluster.phase("a", "Succeeded")
    assert await cluster.logs("a") == "oldnew"


async def test_host_paths_are_refused(cluster: Cluster) -> None:
    await cluster.create(shell("a", "true", **mount("/x", {"hostPath": {"path": "/etc"}})))
    assert "hostPath is refused" in (await cluster.event("a", "FailedMount"))["message"]
    await cluster.delete("a")
    await cluster.gone("a")


# Addresses, devices


async def test_two_pods_on_the_same_port(cluster: Cluster) -> None:
    for name in ("a", "b"):
        script = f'touch healthy; exec {sys.executable} -c "$CODE"'
        container = {
            "env": [POD_IP, {"name": "CODE", "value": SERVE}],
            "ports": [{"name": "http", "containerPort": 8888}],
            "readinessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
        }
        await cluster.create(shell(name, script, container=container))
    addresses = {}
    for name in ("a", "b"):
        obj = await cluster.until(name, is_ready)
        addresses[name] = obj["status"]["podIP"]
        reader, writer = await asyncio.open_connection(addresses[name], 8888)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).decode().endswith(f"\r\n{name}")
        writer.close()
        await writer.wait_closed()
    assert addresses["a"] != addresses["b"]


async def test_gpus_are_granted_to_one_pod_each(cluster: Cluster) -> None:
    script = "echo $NVIDIA_VISIBLE_DEVICES $CUDA_VISIBLE_DEVICES; exec sleep 60"
    granted = []
    for name in ("a", "b"):
        # What the pod says itself does not count.
        env = [{"name": "CUDA_VISIBLE_DEVICES", "value": "0,1"}]
        await cluster.started(shell(name, script, container={**gpus(1), "env": env}))
        granted.append((await first_line(cluster, name)).split())
    assert sorted(granted) == [["0", "0"], ["1", "1"]]
    await cluster.create(shell("c", script, container=gpus(1)))
    await cluster.until("c", lambda p: condition(p, "PodScheduled").get("status") == "False")
    # Force-deleted: gone from the API at once, and its device is free when the next one starts.
    await cluster.delete("a", grace=0)
    await cluster.phase("c", "Running")
    assert (await first_line(cluster, "c")).split() == granted[0]


async def test_a_pod_that_does_not_fit_its_node_is_rejected(cluster: Cluster) -> None:
    await cluster.create(pod("a", "true", container=gpus(3), nodeName="node-0"))
    obj = await cluster.phase("a", "Failed")
    assert obj["status"]["reason"] == "OutOfnvidia.com/gpu"
    assert obj["status"]["message"] == (
        "Pod was rejected: Node didn't have enough resource: nvidia.com/gpu, requested: 3, "
        "used: 0, capacity: 2"
    )


# Starting and restarting


async def test_unknown_images_say_what_to_do(cluster: Cluster) -> None:
    await cluster.create(pod("a", "true", container={"image": "docker.io/acme/x:1"}))
    await cluster.until("a", lambda p: waiting(p).get("reason") == "ErrImagePull")
    obj = await cluster.until("a", lambda p: waiting(p).get("reason") == "ImagePullBackOff")
    message = waiting(obj)["message"]
    assert message.startswith('Back-off pulling image "docker.io/acme/x:1": ErrImagePull: ')
    assert "busybox*" in message
    assert "--image PATTERN" in message
    assert obj["status"]["phase"] == "Pending"
    await cluster.event("a", "BackOff")
    with pytest.raises(ApiError, match="trying and failing to pull image"):
        await cluster.logs("a")


async def test_a_missing_program(cluster: Cluster) -> None:
    obj = await cluster.run(pod("a", "no-such-program"))
    ended = terminated(obj)
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert 'exec: "no-such-program": executable file not found in $PATH' in ended["message"]
    assert obj["status"]["phase"] == "Failed"


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
async def test_exit_codes(cluster: Cluster, code: int, phase: str) -> None:
    obj = await cluster.run(shell("a", f"exit {code}"))
    ended = terminated(obj)
    assert obj["status"]["phase"] == phase
    assert ended["exitCode"] == code
    assert ended["reason"] == ("Completed" if code == 0 else "Error")
    assert state_of(obj)["containerID"].startswith("gpucloud://")
    assert condition(obj, "Ready")["status"] == "False"


async def test_a_crash_loop_backs_off_and_recovers(cluster: Cluster) -> None:
    script = "echo run >> count; echo n=$(wc -l < count); [ $(wc -l < count) -ge 3 ] || exit 4"
    await cluster.create(shell("a", script, restartPolicy="OnFailure"))
    obj = await cluster.until("a", lambda p: waiting(p).get("reason") == "CrashLoopBackOff")
    status = state_of(obj)
    assert status["lastState"]["terminated"]["exitCode"] == 4
    assert "restarting failed container=c pod=a_default(" in status["state"]["waiting"]["message"]
    assert obj["status"]["phase"] == "Running"
    assert (
        "Back-off restarting failed container c" in (await cluster.event("a", "BackOff"))["message"]
    )
    obj = await cluster.phase("a", "Succeeded")
    assert state_of(obj)["restartCount"] == 2
    assert await cluster.logs("a") == "n=3\n"
    assert await cluster.logs("a", previous="true") == "n=2\n"


async def test_always_restarts_a_success(cluster: Cluster) -> None:
    await cluster.create(shell("a", "exit 0", restartPolicy="Always"))
    obj = await cluster.until("a", lambda p: state_of(p).get("restartCount", 0) >= 2)
    assert state_of(obj)["lastState"]["terminated"]["reason"] == "Completed"


async def test_init_containers_run_one_after_the_other(cluster: Cluster) -> None:
    shared = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}

    def init(name: str, script: str) -> Obj:
        return {"name": name, "image": "busybox", "command": ["sh", "-c", script], **shared}

    a_pod = shell("a", "cat /v/log", container=shared, volumes=[{"name": "v", "emptyDir": {}}])
    inits = [init("one", "sleep 0.2; echo one >> /v/log"), init("two", "echo two >> /v/log")]
    a_pod["spec"]["initContainers"] = inits
    await cluster.create(a_pod)
    await cluster.until("a", lambda p: waiting(p).get("reason") == "PodInitializing")
    obj = await cluster.phase("a", "Succeeded")
    assert await cluster.logs("a", container="c") == "one\ntwo\n"
    codes = [s["state"]["terminated"]["exitCode"] for s in obj["status"]["initContainerStatuses"]]
    assert codes == [0, 0]
    failing = shell("b", "echo never")
    failing["spec"]["initContainers"] = [{**inits[0], "command": ["false"], "volumeMounts": []}]
    obj = await cluster.run(failing)
    assert obj["status"]["phase"] == "Failed"
    assert state_of(obj)["state"]["waiting"]["reason"] == "PodInitializing"


async def test_a_sidecar_ends_with_the_work(cluster: Cluster) -> None:
    side = {"name": "side", "image": "busybox", "command": ["sleep", "60"]}
    a_pod = shell("a", "exit 0")
    a_pod["spec"] |= {"initContainers": [{**side, "restartPolicy": "Always"}]}
    a_pod["spec"]["terminationGracePeriodSeconds"] = 1
    await cluster.create(a_pod)
    await cluster.phase("a", "Succeeded")


async def test_termination_messages(cluster: Cluster) -> None:
    write = shell("a", "echo -n all is well > /dev/termination-log")
    assert terminated(await cluster.run(write))["message"] == "all is well"
    policy = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    fall = shell("b", "echo the last words; exit 1", container=policy)
    assert terminated(await cluster.run(fall))["message"] == "the last words\n"


async def test_too_much_memory(cluster: Cluster) -> None:
    code = "x = bytearray(200_000_000); import time; time.sleep(60)"
    limits = {"resources": {"limits": {"memory": "100Mi"}}}
    obj = await cluster.run(pod("a", sys.executable, "-c", code, container=limits))
    assert (terminated(obj)["exitCode"], terminated(obj)["reason"]) == (137, "OOMKilled")


async def test_the_deadline(cluster: Cluster) -> None:
    obj = await cluster.run(pod("a", "sleep", "60", activeDeadlineSeconds=1))
    assert obj["status"]["phase"] == "Failed"
    assert obj["status"]["reason"] == "DeadlineExceeded"
    assert terminated(obj)["exitCode"] == 143
