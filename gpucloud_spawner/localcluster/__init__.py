"""The embedded one-machine cluster: a small Kubernetes API server, controllers, a scheduler and a
process kubelet, for evaluation, development and tests on a machine without Kubernetes.

It stands alone: it imports nothing of the product and the product never imports it. Its four parts
speak only the Kubernetes API to one another, through a kubeconfig, so each can be swapped for the
real one. It isolates nobody: every "pod" is a process of the user who started it.
"""
