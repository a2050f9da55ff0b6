"""The REST API of a user's own server, below `<base_url>/gpucloud/`; `routes` has all of it."""
