"""The file browser's contents: the home volume at the root, S3 buckets as folders beside it.

It is the default of a server that has gpucloud's extension and a bucket. Any other server turns it
on with a line of its configuration, as it would turn on another one::

    c.ServerApp.contents_manager_class = "gpucloud_labext.contents.GPUCloudContentsManager"

What a user sees, and what it is:

==================  ==============================================================================
``/``               the home volume (jupyter-server's own AsyncLargeFileManager, untouched)
``/s3/``            the user's bucket: ``GPUCLOUD_S3_BUCKET`` or ``S3ContentsManager.bucket``
``/s3-vision/``     the bucket of team ``vision``: ``GPUCLOUD_S3_TEAM_BUCKETS`` (JSON, team to
                    bucket) or ``GPUCloudContentsManager.team_buckets``
==================  ==============================================================================

Without a bucket there is no ``/s3/`` and the server is as it would be without this package.
A real folder of that name in the home volume is not reachable while the drive is there.

In the bucket, keys are what the user sees: ``/s3/data/a.csv`` is the key ``data/a.csv``. Two kinds
of keys are ours, both hidden: ``<folder>/.s3keep`` keeps an empty folder (as s3contents does: the
embedded server has no ``name/`` keys; such markers of other clients are understood), and
``.gpucloud/checkpoints/`` holds the checkpoints.

The connection is that of the pod's environment (``AWS_ENDPOINT_URL_S3``, ``AWS_DEFAULT_REGION``,
``AWS_SHARED_CREDENTIALS_FILE``, else ``AWS_ACCESS_KEY_ID``...); the traits of s3contents'
``S3ContentsManager`` override it, so an existing configuration carries over. ``S3ContentsManager``
of this package also works alone, with the bucket at the root.

boto3 in a small pool of threads, not aiobotocore: botocore parses XML in Python, and on the event
loop that held other requests up for 185-365 ms (p99, a listing of 10,000 objects) against 20-25 ms
from threads, at the same speed; bench/s3.py measures it.
"""

from .manager import GPUCloudContentsManager
from .s3manager import S3ContentsManager

__all__ = ["GPUCloudContentsManager", "S3ContentsManager"]
