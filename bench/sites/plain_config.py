"""Plain KubeSpawner with the pod, volume and grace period of gpucloud's `tensorflow` profile."""

from pathlib import Path

c = get_config()
load_subconfig(str(Path(__file__).parents[2] / "hub_config" / "local.py"))

c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.JupyterHub.allow_named_servers = True
c.KubeSpawner.namespace = "gpucloud"
c.KubeSpawner.component_label = "plain"
c.KubeSpawner.pod_name_template = "plain-{user_server}"
c.KubeSpawner.pvc_name_template = "plain-claim-{user_server}"
c.KubeSpawner.image = "gpucloud/notebook:0.1"
c.KubeSpawner.ip = "$(POD_IP)"
c.KubeSpawner.environment = {
    "POD_IP": {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
}
c.KubeSpawner.extra_resource_limits = {"nvidia.com/gpu": "1"}
c.KubeSpawner.cpu_guarantee = 0.1
c.KubeSpawner.mem_guarantee = "512M"
c.KubeSpawner.mem_limit = "8G"
c.KubeSpawner.storage_pvc_ensure = True
c.KubeSpawner.storage_capacity = "10Gi"
c.KubeSpawner.storage_class = "ceph-rbd"
c.KubeSpawner.storage_access_modes = ["ReadWriteOnce"]
c.KubeSpawner.volumes = [{"name": "home", "persistentVolumeClaim": {"claimName": "{pvc_name}"}}]
c.KubeSpawner.volume_mounts = [{"name": "home", "mountPath": "/home/jovyan"}]
c.KubeSpawner.uid = 1000
c.KubeSpawner.fs_gid = 100
c.KubeSpawner.delete_grace_period = 30
c.KubeSpawner.extra_pod_config = {"terminationGracePeriodSeconds": 30}
c.KubeSpawner.default_url = "/lab"
c.KubeSpawner.start_timeout = 300
