"""Distributed jobs on Kubernetes: their objects, and the reconciler that follows them.

What a job is is in `model.jobs`; where it is stored this room does not know (`store`).
"""
