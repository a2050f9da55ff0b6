"""What a call to a store may raise, for `except`."""

from __future__ import annotations

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

# OSError: files and the network. urllib3's own: botocore lets it out where the text of an error
# does not arrive whole (it reads that without its usual translation).
StoreErrors = (BotoCoreError, Boto3Error, ClientError, HTTPError, OSError)
