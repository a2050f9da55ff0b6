"""The names of pods: what a process finds in its hosts file when pods come and go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpucloud_spawner.localcluster.apiserver import APIServer
from gpucloud_spawner.localcluster.client import KubeClient
from gpucloud_spawner.localcluster.kubelet.hosts import Hosts
from tests.localcluster.support import NAMESPACE, Cluster, indexed, job, terminated

from .support import Obj, conditions, pods_of, run, running, until, until_pods

HOSTS = "$GPUCLOUD_MOUNTS/etc/hosts"


def file_of(cluster: Cluster, pod: Obj) -> Path:
    return cluster.data / "kubelet/pods" / pod["metadata"]["uid"] / "etc-hosts"


def service(name: str, **spec: Any) -> Obj:
    """A headless Service of a Job's pods."""
    selector = {"batch.kubernetes.io/job-name": name}
    body = {"clusterIP": "None", "selector": selector, "ports": [{"port": 2222}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


async def test_the_pods_of_a_job_find_each_other_by_name(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create(service("train", publishNotReadyAddresses=True))
    script = f"""
        for other in 0 1; do
            until grep -q "train-$other.train.default.svc " {HOSTS}; do sleep 0.02; done
        done
        grep -w train-1.train {HOSTS} | cut -f 1
        touch {tmp_path}/$HOSTNAME
        until [ -e {tmp_path}/train-0 ] && [ -e {tmp_path}/train-1 ]; do sleep 0.02; done"""
    body = indexed("train", script, 2, template={"subdomain": "train"})
    done = await run(cluster, body)
    assert "Complete" in conditions(done)
    pods = await pods_of(cluster, "train")
    addresses = {p["spec"]["hostname"]: p["status"]["podIP"] for p in pods}
    for pod in pods:
        lines = (await cluster.logs(pod["metadata"]["name"])).split()
        assert set(lines) == {addresses["train-1"]}


async def test_a_pod_that_is_replaced_is_soon_found_at_its_new_address(
    cluster: Cluster,
) -> None:
    await cluster.create(service("train"))
    body = indexed("train", "sleep 60", 2, template={"subdomain": "train"}, backoffLimit=6)
    await cluster.create(body)
    first = await until_pods(cluster, "train", running(2))
    old, watching = sorted(first, key=lambda p: p["spec"]["hostname"])
    file = file_of(cluster, watching)
    await until(lambda: f"{old['status']['podIP']}\ttrain-0.train.default" in file.read_text())
    await cluster.delete(old["metadata"]["name"], grace=0)

    def replaced(pods: list[Obj]) -> bool:
        names = {p["metadata"]["name"] for p in pods if p["status"]["phase"] == "Running"}
        return len(names - {old["metadata"]["name"]}) == 2

    pods = await until_pods(cluster, "train", replaced)
    new = next(p for p in pods if p["spec"]["hostname"] == "train-0")
    line = f"{new['status']['podIP']}\ttrain-0.train.default.svc.cluster.local"
    await until(lambda: line in file.read_text(), 5)
    await until(lambda: old["status"]["podIP"] not in file.read_text(), 5)


async def test_a_pod_that_is_not_ready_has_no_name_unless_the_service_says_so(
    cluster: Cluster,
) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    container = job("x", "sleep 60")["spec"]["template"]["spec"]["containers"][0]
    template = {"subdomain": "shy", "containers": [{**container, "readinessProbe": probe}]}
    await cluster.create(service("shy"))
    await cluster.create(indexed("shy", "", 2, template=template))
    pods = await until_pods(cluster, "shy", running(2))
    one, other = sorted(pods, key=lambda p: p["spec"]["hostname"])
    file = file_of(cluster, one)
    slices = await cluster.informer("endpointslices")

    def addresses() -> list[str]:
        return [a for s in slices.store.values() for e in s["endpoints"] for a in e["addresses"]]

    await until(lambda: len(addresses()) == 2)
    text = file.read_text()
    assert f"{one['status']['podIP']}\tshy-0.shy.default.svc.cluster.local" in text
    assert other["status"]["podIP"] not in text
    change = {"spec": {"publishNotReadyAddresses": True}}
    await cluster.client.patch("services", "shy", change, NAMESPACE)
    await until(lambda: f"{other['status']['podIP']}\tshy-1.shy.default" in file.read_text())


async def test_a_container_finds_its_hosts_and_its_termination_message(cluster: Cluster) -> None:
    script = """
        grep -q localhost /etc/hosts && grep -q filer.example /etc/hosts || exit 1
        echo -n one >> $GPUCLOUD_TERMINATION_LOG
        echo -n two >> $GPUCLOUD_MOUNTS/dev/termination-log
        echo -n three >> /dev/termination-log"""
    aliases = [{"ip": "10.1.2.3", "hostnames": ["filer.example"]}]
    await run(cluster, job("last", script, template={"hostAliases": aliases}))
    [pod] = await pods_of(cluster, "last")
    assert terminated(pod)["message"] == "onetwothree"


async def test_a_service_that_goes_takes_its_names_along(cluster: Cluster) -> None:
    await cluster.create(service("train"))
    await cluster.create(indexed("train", "exec sleep 60", 2, template={"subdomain": "train"}))
    pods = await until_pods(cluster, "train", running(2))
    files = {p["spec"]["hostname"]: file_of(cluster, p) for p in pods}
    await until(lambda: all("train-1.train" in f.read_text() for f in files.values()))
    assert "\ttrain.default.svc.cluster.local train.default.svc train.default train\n" in (
        files["train-0"].read_text()
    )
    await cluster.client.delete("services", "train", NAMESPACE)
    await until(lambda: "train-1" not in files["train-0"].read_text())
    assert "train-0.train.default.svc" in files["train-0"].read_text()  # its own name stays


async def test_names_are_known_in_their_namespace_only(cluster: Cluster) -> None:
    await cluster.client.create("namespaces", {"metadata": {"name": "other"}})
    await cluster.create(service("train"))
    await cluster.create(indexed("train", "exec sleep 60", 1, template={"subdomain": "train"}))
    await until_pods(cluster, "train", running(1))
    slices = await cluster.informer("endpointslices")
    await until(lambda: any(s["endpoints"] for s in slices.store.values()))
    stranger = job("stranger", "exec sleep 60")
    await cluster.client.create("jobs", stranger, "other")
    pods = await cluster.informer("pods")

    def known() -> list[Obj]:
        found = [p for k, p in pods.store.items() if k.startswith("other/")]
        return [p for p in found if p["status"]["phase"] == "Running"]

    await until(lambda: len(known()) == 1)
    text = file_of(cluster, known()[0]).read_text()
    assert "localhost" in text
    assert "train" not in text


async def test_a_restarted_kubelet_knows_all_names_at_once(
    apiserver: APIServer, tmp_path: Path
) -> None:
    labels = {"kubernetes.io/service-name": "train", "service.kubernetes.io/headless": ""}
    endpoints = [
        {"addresses": [address], "hostname": name, "conditions": {"terminating": ends}}
        for address, name, ends in (
            ("10.0.0.1", "train-0", True),  # is being replaced
            ("10.0.0.2", "train-0", False),
            ("10.0.0.3", "train-1", False),
        )
    ]
    body = {"metadata": {"name": "train-x", "labels": labels}, "addressType": "IPv4"}
    pod = {
        "metadata": {"name": "me", "namespace": NAMESPACE, "uid": "u"},
        "spec": {},
        "status": {"podIP": "10.0.0.9"},
    }
    async with KubeClient.from_kubeconfig(str(apiserver.kubeconfig)) as client:
        await client.create("endpointslices", {**body, "endpoints": endpoints}, NAMESPACE)
        async with Hosts(client) as hosts:
            await hosts.synced()
            hosts.add(pod, tmp_path / "pod")
            lines = (tmp_path / "pod/etc-hosts").read_text().splitlines()
    found = [line.split()[0] for line in lines if "train-0.train" in line]
    assert found == ["10.0.0.2", "10.0.0.1"]  # the one that stays first
    assert "10.0.0.9\tme" in lines
    assert any(
        line.startswith("10.0.0.3\ttrain-1.train.default.svc.cluster.local") for line in lines
    )
