"""The site file: what you offer, to whom, at which price. This is the file to edit.

It is ordinary JupyterHub configuration, so every JupyterHub and KubeSpawner setting may stand here.
`make run` needs no change. A mistake is named when the hub starts.
"""

import os

from gpucloud_spawner import CephRGW, Image, Profile

c = get_config()

# --- Images -----------------------------------------------------------------------------------
# GPUCLOUD_NOTEBOOK_IMAGE overrides the image without an edit.
notebook = Image(
    image=os.environ.get("GPUCLOUD_NOTEBOOK_IMAGE") or "gpucloud/notebook:0.1",
    display_name="Notebook",
)

# --- Profiles ---------------------------------------------------------------------------------
# The first one that a user may use is preselected. All fields, with what they mean, are in
# gpucloud_spawner/model/profiles.py.
gpus_per_node = int(os.environ.get("GPUCLOUD_GPUS_PER_NODE") or 2)

c.GPUCloudSpawner.profiles = [
    Profile(
        slug="tensorflow",
        display_name="TensorFlow on GPU",
        description="For training and for trying models.",
        images={"notebook": notebook},
        gpus=list(range(gpus_per_node + 1)),
        default_gpus=min(1, gpus_per_node),
        cpu_guarantee=0.1,
        mem_guarantee="512M",
        mem_limit="8G",
        storage=["10Gi", "20Gi", "50Gi", "100Gi"],
        price_per_gpu_hour="1.50",
        # One GPU model only:   node_selector={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"},
        # One team only:        groups=["vision"],
        # MIG, other vendors:   gpu_resource="nvidia.com/mig-1g.5gb",
    ),
    Profile(
        slug="cpu",
        display_name="CPU only",
        description="For writing code, for data and for looking at results. Costs no GPU time.",
        images={"notebook": notebook},
        gpus=[0],
        cpu_guarantee=0.1,
        mem_guarantee="256M",
        mem_limit="4G",
        storage=["10Gi", "20Gi", "50Gi", "100Gi"],
    ),
]

# --- Volumes ----------------------------------------------------------------------------------
# The storage class of home volumes: Ceph RBD in production.
c.GPUCloudSpawner.storage_class = os.environ.get("GPUCLOUD_STORAGE_CLASS") or "ceph-rbd"
c.GPUCloudSpawner.namespace = os.environ.get("GPUCLOUD_NAMESPACE") or "gpucloud"

# --- Data in S3 ---------------------------------------------------------------------------------
# Every user gets a bucket and a key pair, every team a bucket. `make run` brings its own server.
# On Ceph, the hub needs an RGW user with the capabilities "users=*;buckets=*". Its key comes from
# a file {"access_key": ..., "secret_key": ...} that only the hub may read (admin_file=...), or
# from GPUCLOUD_RGW_ACCESS_KEY and GPUCLOUD_RGW_SECRET_KEY; never write it here.
if os.environ.get("GPUCLOUD_S3", "").startswith(("https://", "http://")):
    c.GPUCloudSpawner.s3_provider = CephRGW(os.environ["GPUCLOUD_S3"])
# With a quota:      CephRGW("https://s3.example.com", quota_bytes=500 * 2**30)
# Keys made by hand: StaticS3("https://s3.example.com", file="/etc/gpucloud/s3-keys.yaml")

# --- Waiting ----------------------------------------------------------------------------------
# Seconds that a start may wait for a free GPU, and then for its server to answer.
c.GPUCloudSpawner.queue_timeout = 3600
c.GPUCloudSpawner.launch_timeout = 300

# --- Teams ------------------------------------------------------------------------------------
# Teams are JupyterHub groups. A server is billed to one team of its owner, chosen at its start.
# `gpucloud_admins` of a group see all usage that is billed to it.
c.JupyterHub.load_groups = {
    # "vision": {"users": ["ada", "alan"], "properties": {"gpucloud_admins": ["ada"]}},
}

# --- Cost and budgets -------------------------------------------------------------------------
# All prices, those of the profiles above too, are in this currency.
c.GPUCloudPortal.currency = "EUR"
# One GiB of home volume for one hour; empty: volumes cost nothing.
c.GPUCloudPortal.storage_price_per_gib_hour = ""
# GPU-hours per calendar month (UTC). "*": everybody, or every team, without an entry of its own.
# Used up, no new server with GPUs starts; what runs goes on.
c.GPUCloudPortal.user_budgets = {
    # "*": 200,
    # "ada": 500,
}
c.GPUCloudPortal.team_budgets = {
    # "vision": 5000,
}
# Whether servers with GPUs start while the budget cannot be looked up: "allow" or "deny".
c.GPUCloudSpawner.budget_unreachable = "allow"
