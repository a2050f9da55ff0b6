"""JupyterHub's configuration: gpucloud wired in, then your site file, then where it runs.

You rarely edit this file. Profiles, teams and prices are in gpucloud_config.py beside it; a hub of
your own needs only the two lines of `configure`.
"""

import os
from pathlib import Path

from gpucloud_spawner import configure

c = get_config()

configure(c)

here = Path(__file__).parent
load_subconfig(str(here / "gpucloud_config.py"))

# `make run`: everything on this machine; the pods on the embedded cluster, or on that of KUBECONFIG
if os.environ.get("GPUCLOUD_CLUSTER", "local") in ("", "local", "kubeconfig"):
    load_subconfig(str(here / "local.py"))
