"""A user's day: start with a GPU, compute, stop, come back, delete."""

from __future__ import annotations

import pytest

from .cloud import Cloud, User, wait_for

GPU = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"


def granted(user: User, server: str = "") -> list[str]:
    return [gpu for gpu in user.run_code(GPU, server).split(",") if gpu]


def test_a_kernel_sees_exactly_the_gpus_that_were_granted(cloud: Cloud, ada: User) -> None:
    ada.start(profile="tensorflow", gpus="2")
    assert len(granted(ada)) == 2
    pod = cloud.pods(ada.name)[0]
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["metadata"]["labels"]["gpucloud.io/component"] == "notebook"
    assert pod["metadata"]["annotations"]["gpucloud.io/profile"] == "tensorflow"


def test_a_cpu_profile_sees_no_gpu(ada: User) -> None:
    ada.start(profile="cpu")
    assert granted(ada) == []


def test_a_pod_of_a_user_holds_no_rights_over_the_cluster(cloud: Cloud, ada: User) -> None:
    ada.start(profile="cpu")
    spec = cloud.pods(ada.name)[0]["spec"]
    assert spec["automountServiceAccountToken"] is False
    security = spec["containers"][0]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["runAsUser"] != 0
    assert spec["terminationGracePeriodSeconds"] >= 10


def test_stopping_frees_the_gpu_and_keeps_the_files_and_deleting_ends_them(
    cloud: Cloud, ada: User
) -> None:
    ada.start("lab", profile="tensorflow", gpus="1")
    ada.run_code("open('kept.txt', 'w').write('of yesterday')", "lab")
    ada.stop("lab")
    assert cloud.pods(ada.name) == []
    assert len(cloud.claims(ada.name)) == 1

    ada.start("lab", profile="cpu")
    assert ada.run_code("print(open('kept.txt').read())", "lab") == "of yesterday"
    # nothing of the GPU start leaked into this one
    limits = cloud.pods(ada.name)[0]["spec"]["containers"][0]["resources"].get("limits", {})
    assert "nvidia.com/gpu" not in limits

    ada.stop("lab", remove=True)
    wait_for(lambda: cloud.claims(ada.name) == [], "the volume is deleted")


def test_two_users_on_the_same_port_reach_their_own_servers(
    cloud: Cloud, ada: User, bob: User
) -> None:
    ada.request_start(profile="cpu")
    bob.start(profile="cpu")
    wait_for(ada.is_ready, "ada is ready")
    ports = {p["spec"]["containers"][0]["ports"][0]["containerPort"] for p in cloud.pods()}
    assert ports == {8888}
    who = "import os; print(os.environ['JUPYTERHUB_USER'])"
    assert ada.run_code(who) == ada.name
    assert bob.run_code(who) == bob.name
    # and with another's token, nothing
    refused = bob.cloud.user(bob.name).lab("GET", "api/kernels")
    assert refused.status_code == 200
    stolen = User.lab(_as(bob, ada), "GET", "api/kernels", follow_redirects=False)
    assert stolen.status_code in (302, 403)


def _as(who: User, name: User) -> User:
    """``name``'s address with ``who``'s token."""
    mixed = object.__new__(User)
    mixed.cloud, mixed.name, mixed.token = who.cloud, name.name, who.token
    return mixed


def test_two_applications_of_one_user_have_a_volume_each(cloud: Cloud, ada: User) -> None:
    ada.start("one", profile="cpu")
    ada.start("two", profile="cpu")
    ada.run_code("open('here.txt', 'w').write('one')", "one")
    assert ada.run_code("import os; print(os.path.exists('here.txt'))", "two") == "False"
    assert len(cloud.claims(ada.name)) == 2


def test_a_team_is_chosen_and_labelled(cloud: Cloud) -> None:
    vera = cloud.user("vera")
    vera.start(profile="vision", team="vision")
    notes = cloud.pods("vera")[0]["metadata"]["annotations"]
    assert notes["gpucloud.io/team"] == "vision"
    assert vera.run_code("import os; print(os.environ['GPUCLOUD_TEAM'])") == "vision"


@pytest.mark.parametrize(("size", "outcome"), [("20Gi", "20Gi"), ("10Gi", "cannot shrink to 10Gi")])
def test_a_volume_grows_and_never_shrinks(cloud: Cloud, ada: User, size: str, outcome: str) -> None:
    first = "10Gi" if size == "20Gi" else "20Gi"
    ada.start("lab", profile="cpu", storage=first)
    ada.stop("lab")
    answer = ada.request_start("lab", profile="cpu", storage=size)
    if outcome == size:
        wait_for(lambda: ada.is_ready("lab"), "it starts")
        wait_for(
            lambda: cloud.claims(ada.name)[0]["status"]["capacity"]["storage"] == size, "it grew"
        )
    else:
        assert answer.status_code == 400
        assert outcome in answer.json()["message"]
        assert cloud.pods(ada.name) == []


def test_a_start_without_a_size_keeps_the_size_there_is(cloud: Cloud, ada: User) -> None:
    ada.start("lab", profile="cpu", storage="20Gi")
    ada.stop("lab")
    ada.start("lab", profile="cpu")
    claim = cloud.claims(ada.name)[0]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
