"""The process kubelet: runs the pods bound to its nodes as local processes.

It takes a kubeconfig and speaks only the public Kubernetes API, so it can be a node of a real API
server too. `kubelet` ties the parts together, `podworker` brings one pod to what the API says,
`runtime` and `shim` run processes, `status` is what the API is told.

What a container gets here, and what it cannot get without a container runtime:
- its own loopback address as pod IP, its own HOME, its volumes, and only the environment of the
  pod and its image: nothing of the kubelet's own;
- no isolation: it is a process of the user who started the kubelet, who sees all other files and
  processes. Security contexts, read-only mounts and cpu limits are not enforced; memory limits are.
- Mounts: see `view`.
"""
