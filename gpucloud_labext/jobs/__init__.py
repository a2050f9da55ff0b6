"""Jobs as their user sees them: the code that travels, the launch, the Job object, its logs.

`capture`, `packages` and `upload` put the working directory into the bucket, `launch` asks the
service for a job, `job` is what a notebook holds of it, `watch` and `tables` show it. `manifest`
and `store` are used at the other end, too: by the replicas (`gpucloud_labext.replica`), so they
import neither Jupyter nor IPython.
"""
