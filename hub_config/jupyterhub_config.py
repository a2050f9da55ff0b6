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

# `make run` only (`gpucloud run` sets the variable): one machine, any user name, no password.
# Without it, set an authenticator, the database and the addresses here, as for any JupyterHub.
if os.environ.get("GPUCLOUD_RUN"):
    load_subconfig(str(here / "local.py"))
