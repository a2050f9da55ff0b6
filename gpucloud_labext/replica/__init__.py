"""One replica of a job, from the inside: what `python -m gpucloud_labext.runner` does.

`contract` reads the environment, `workspace` fetches the code, `packages` installs, `gang` waits
for the others, `script` runs the user's command, `output` and `mirror` carry what it says and
writes to the bucket, `supervisor` puts them in order. Imports no Jupyter: a replica's start is time
that its GPUs are billed.
"""
