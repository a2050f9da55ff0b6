"""The shipped configuration plus profiles that go wrong in one way each."""

from pathlib import Path

from gpucloud_spawner import Image, Profile

c = get_config()

root = Path(__file__).parents[3]
load_subconfig(str(root / "hub_config" / "jupyterhub_config.py"))

notebook = {"notebook": Image(image="gpucloud/notebook:0.1")}
crash = ["python", "-c", "print('boom: no licence found', flush=True); raise SystemExit(3)"]

c.GPUCloudSpawner.profiles = [
    *c.GPUCloudSpawner.profiles,
    Profile(slug="vision", display_name="For vision", images=notebook, groups=["vision"]),
    Profile(
        slug="h100",
        display_name="A GPU that no node has",
        images=notebook,
        gpus=[1],
        node_selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    ),
    Profile(slug="huge", display_name="More than a node has", images=notebook, gpus=[0, 16]),
    Profile(
        slug="crash",
        display_name="Crashes at its start",
        images=notebook,
        gpus=[0, 1],
        kubespawner_override={"cmd": crash},
    ),
    Profile(
        slug="no-image",
        display_name="An image that is nowhere",
        images={"none": Image(image="registry.invalid/none:1")},
    ),
]
c.JupyterHub.load_groups = {
    "vision": {"users": ["vera"], "properties": {"gpucloud_admins": ["vera"]}},
    "speech": {"users": ["vera"]},
}
# shorter than by default, for tests wait for both; longer than the 10 s for which the hub waits
# before it answers the request for a start
c.GPUCloudSpawner.start_patience = 14
c.GPUCloudSpawner.orphan_age = 20
# GPU-hours per month; the second one is 7.2 GPU-seconds
c.GPUCloudPortal.user_budgets = {"admin": 0, "thrifty": 0.002}
# the failures of these tests must never reach it: the shipped default of many sites
c.Spawner.consecutive_failure_limit = 2
