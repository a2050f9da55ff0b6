"""JupyterHub's own local spawner: no pod, no cluster."""

import os
from pathlib import Path

c = get_config()
load_subconfig(str(Path(__file__).parents[2] / "hub_config" / "local.py"))

c.JupyterHub.spawner_class = "simple"
c.JupyterHub.allow_named_servers = True
c.SimpleLocalProcessSpawner.home_dir_template = os.environ["GPUCLOUD_DATA"] + "/{username}"
c.Spawner.default_url = "/lab"
