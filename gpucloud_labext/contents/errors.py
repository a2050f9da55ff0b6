"""What the store's errors mean for a person: the one border between botocore and HTTP."""

from __future__ import annotations

import errno

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from s3transfer.exceptions import RetriesExceededError
from tornado.web import HTTPError
from urllib3.exceptions import HTTPError as BrokenAnswer

BAD_KEY = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
    "UserSuspended",
}
NO_ROOM = {"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull"}
BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "503", "500"}


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: ClientError) -> bool:
    """No such object. (HEAD answers have no body, so a missing bucket looks the same there.)"""
    return code_of(error) in ("NoSuchKey", "404", "NotFound")


def explain(error: Exception, what: str, bucket: str, endpoint: str) -> HTTPError:
    """An HTTP error with words for ``error``; ``what`` is the path the user named."""
    if isinstance(error, ClientError):
        return _of_answer(error, what, bucket)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        message = "There is no S3 key in this server. Restart it; if that fails, ask your admin."
        return HTTPError(403, message, reason="No S3 key")
    if isinstance(error, ConnectionError | HTTPClientError | RetriesExceededError | BrokenAnswer):
        message = (
            f"The S3 storage at {endpoint} does not answer ({type(error).__name__}). Nothing is "
            f"half-written; try again in a moment. ({what!r})"
        )
        return HTTPError(503, message, reason="S3 is down")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HTTPError(507, "The home volume is full.", reason="Home volume full")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return HTTPError(403, f"Permission denied: {what!r}", reason="Permission denied")
    return HTTPError(502, f"S3 failed for {what!r}: {error}", reason="S3 failed")


def _of_answer(error: ClientError, what: str, bucket: str) -> HTTPError:
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        message = f"The bucket {bucket!r} does not exist. Ask your admin whether it was removed."
        return HTTPError(404, message, reason="S3 bucket missing")
    if is_missing(error) or code == "NoSuchUpload":
        return HTTPError(404, f"No such file or directory: {what!r}", reason="Not Found")
    if code in BAD_KEY:
        message = f"S3 refuses this server's key ({code}). If it was renewed, wait a minute."
        return HTTPError(403, message, reason="S3 key refused")
    if code in NO_ROOM or status == 507:
        message = f"The quota of bucket {bucket!r} is used up. Delete something, or ask for more."
        return HTTPError(507, message, reason="S3 quota exceeded")
    if code == "EntityTooLarge" or status == 413:
        return HTTPError(413, f"S3 takes no file of this size: {what!r}", reason="Too large for S3")
    if code in ("AccessDenied", "403", "Forbidden") or status in (401, 403):
        message = f"S3 denies access to {what!r} in bucket {bucket!r}."
        return HTTPError(403, message, reason="S3 access denied")
    if code == "PreconditionFailed" or status == 412:
        return HTTPError(409, f"{what!r} was changed meanwhile.", reason="Changed meanwhile")
    if code in BUSY or status >= 500:
        return HTTPError(
            503, f"S3 failed for {what!r} ({code}); try again in a moment.", reason="S3 is busy"
        )
    return HTTPError(502, f"S3 refused the request for {what!r}: {code}", reason="S3 failed")
