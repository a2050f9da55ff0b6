"""The one border to Kubernetes: watching, the GPU inventory, errors in words.

Manifests of user servers are KubeSpawner's business, not made here.
"""
