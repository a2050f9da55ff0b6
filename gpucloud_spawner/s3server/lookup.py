"""Run by rclone (--auth-proxy) in the data folder for a key that it does not know yet.

The access key comes on stdin, its secret and what it reaches go to stdout; rclone checks the
signature. Standard library only, and little of it: it starts in 20 ms.
"""

import json
import os
import sys


def main() -> int:
    """Answer one question; exit code 1 refuses."""
    key = json.load(sys.stdin).get("user", "")
    # a key is a file name here: letters and digits alone, so that it cannot be a path
    if not (key.isascii() and key.isalnum()):
        return 1
    try:
        with open(os.path.join("keys", f"{key}.json"), encoding="utf-8") as stream:  # noqa: PTH118, PTH123
            record = json.load(stream)
    except FileNotFoundError:
        return 1
    view = os.path.join(os.getcwd(), "views", key)  # noqa: PTH109, PTH118
    answer = {
        # the hasher remembers MD5 sums (ETags): otherwise each HEAD would read the whole object
        "type": "hasher",
        "remote": f":local,copy_links=true:{view}",
        "hashes": "md5",
        "max_age": "off",
        "_root": "",
        "_secret_access_key": record["secret_key"],
    }
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
