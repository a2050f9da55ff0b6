"""An S3 server for one machine: rclone on a folder, or a one-node Ceph with RGW.

`python -m gpucloud_spawner.s3server --data DIR --port N [--kind rclone|ceph]` on loopback, in the
foreground. It imports nothing of the product. It is for trying, developing and testing.

The rclone kind serves this folder; whoever makes keys (`gpucloud_spawner/storage/s3_local.py`)
writes to it, and the server follows at once:

    DIR/users/U/BUCKET/...      buckets of one user; U is the root of what that user sees
    DIR/users/U/TEAMBUCKET      link to ../../teams/TEAMBUCKET
    DIR/teams/TEAMBUCKET/...    buckets of teams
    DIR/keys/KEY.json           {"access_key", "secret_key", ...}, mode 0600: this key exists
    DIR/views/KEY               link to ../users/U: what it reaches; a plain file once it is dead

A key is a backend of its own, rooted at its view: other people's buckets do not exist for it, by
whatever name it asks. The server asks for a key's secret again only after minutes, but opens the
view anew with each request, so a key is dead once its view is not a folder any more.

What rclone does otherwise than S3: a range is answered with 200 (and the right Content-Range), an
empty listing has no KeyCount, If-Match and If-None-Match are ignored, and a key is a path: `f` and
`f/g` cannot both be. A client that puts an object onto the name of a folder hides that folder's
objects until it deletes the object again; ours look first and refuse.
"""
