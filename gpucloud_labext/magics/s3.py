"""`%gpucloud s3`: where the data are, how to reach them from elsewhere, listing and copying."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..client import own_server
from ..errors import LabError
from ..s3.keys import KEY, SECRET, KeyFile, Keys
from ..s3.places import DRIVE, drives, parse
from . import show
from .command import Command, Context, Parser, Result
from .snippets import snippets

if TYPE_CHECKING:
    from ..s3.transfer import Progress

SHOWN = 500  # rows
SHOW_SECONDS = 0.25
SWITCH_SECONDS = 180.0  # kubelets look at mounted Secrets every minute or so


def add_options(parser: Parser) -> None:
    parser.add_argument("--show-secret", action="store_true", help="show the secret key, too")
    actions = parser.add_subparsers(dest="action", metavar="ls | cp | sync | rotate")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text, add_help=False)

    place = "s3://BUCKET/KEY, s3/... as in the file browser, or a path on the disk"
    action("ls", "list a folder").add_argument("place", nargs="?", default=DRIVE, help=place)
    copy = action("cp", "copy a file, or with -r a folder")
    copy.add_argument("-r", "--recursive", action="store_true", help="all that is in a folder")
    for parser_of in (copy, action("sync", "copy what differs; deletes nothing")):
        parser_of.add_argument("source", help=place)
        parser_of.add_argument("target", help=place)
        parser_of.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    action("rotate", "make a new key; the old one is dead at once")


def run(options: argparse.Namespace, context: Context) -> Result:
    return _RUN[options.action](options)


# --- where the data are


def _show(options: argparse.Namespace) -> Result:
    server, _ = own_server()
    data = server.request("GET", "gpucloud/api/s3")
    if not data["bucket"]:
        raise LabError(404, "s3_off", data["message"] or "This server has no S3 bucket.")
    access, secret, _token = _keys()
    usage = data["usage"]
    facts = [
        ("bucket", data["bucket"]),
        *((f"team {team}", bucket) for team, bucket in data["team_buckets"].items()),
        ("endpoint", data["endpoint"]),
        ("region", data["region"]),
        ("in use", _usage(usage) if usage else f"not known: {data['message']}"),
        ("access key", access),
        ("secret key", secret if options.show_secret else "hidden: add --show-secret"),
    ]
    shown = snippets(data, access, secret if options.show_secret else "")
    text, html = [show.text_table(facts)], [show.html_facts(facts)]
    if options.show_secret:
        warning = "Clear this output before you save or share the notebook: it holds your key."
        text.insert(0, warning)
        html.insert(0, f"<p><strong>{show.escape(warning)}</strong></p>")
    for title, lines in shown.items():
        text.append(f"{title}:\n" + "\n".join(f"  {line}" for line in lines))
        code = show.escape("\n".join(lines))
        html.append(f"<details><summary>{show.escape(title)}</summary><pre>{code}</pre></details>")
    # not the secret: data are printed and stored more easily than anything
    return Result("\n\n".join(text), "".join(html), {**data, "access_key": access})


def _keys() -> Keys:
    """The present key. Raises LabError."""
    file = KeyFile.of_environment()
    if file is not None and (keys := file.read()) is not None:
        return keys
    if os.environ.get(KEY):
        return os.environ[KEY], os.environ.get(SECRET, ""), None
    raise LabError(404, "s3_no_key", "There is no S3 key in this server: restart it.")


def _usage(usage: dict[str, Any]) -> str:
    if usage["bytes"] is None:
        return "not told by this store"
    words = f"{show.size(usage['bytes'])} in {usage['objects']} objects"
    if usage["quota_bytes"] is None:
        return words
    percent = 100 * usage["bytes"] / max(usage["quota_bytes"], 1)
    return f"{words}, {percent:.0f} % of {show.size(usage['quota_bytes'])}"


# --- listing


def _ls(options: argparse.Namespace) -> Result:
    from ..s3.plans import bucket_of
    from ..s3.transfer import in_words

    place = parse(options.place)
    if not place.is_s3:
        raise LabError(400, "usage", f"{place} is on the disk: use !ls, or s3://... and s3/...")
    with in_words(place):
        store = bucket_of(place)
        folders, objects = store.children(place.key)
        if place.key and not folders and not objects:
            one = store.head(place.key)
            objects = [one] if one else []
    if place.key and not folders and not objects:
        raise LabError(404, "s3_not_found", f"There is nothing at {place}")
    base = place.key.rpartition("/")[0] if [o.key for o in objects] == [place.key] else place.key
    cut = len(base) + 1 if base else 0
    rows: list[dict[str, Any]] = [
        {"name": f"{name}/", "bytes": None, "modified": None} for name in sorted(folders)
    ]
    rows += [
        {"name": entry.key[cut:], "bytes": entry.size, "modified": entry.modified.isoformat()}
        for entry in objects
        if entry.key[cut:] and entry.key[cut:] != ".s3keep"
    ]
    table = [["name", "size", "modified (UTC)"]]
    for row in rows[:SHOWN]:
        when = (row["modified"] or "-")[:19].replace("T", " ")
        table.append([row["name"], show.size(row["bytes"]), when])
    more = f"{len(rows)} entries in {place}"
    if len(rows) > SHOWN:
        more += f", of which {SHOWN} are shown; all are in the result's `entries`"
    html = show.html_table(table, (1,), caption=more)
    return Result(f"{show.text_table(table, (1,))}\n{more}", html, {"entries": rows})


# --- copying


def _cp(options: argparse.Namespace) -> Result:
    from ..s3.plans import plan_copy
    from ..s3.transfer import in_words

    source, target = parse(options.source), parse(options.target)
    with in_words(source if source.is_s3 else target):
        moves = plan_copy(source, target, options.recursive)
    return _transfer(moves, options.quiet)


def _sync(options: argparse.Namespace) -> Result:
    from ..s3.plans import plan_sync
    from ..s3.transfer import in_words

    source, target = parse(options.source), parse(options.target)
    with in_words(source if source.is_s3 else target):
        moves, alike = plan_sync(source, target)
    return _transfer(moves, options.quiet, alike)


def _transfer(moves: list[Any], quiet: bool, alike: int = 0) -> Result:
    from ..s3.transfer import transfer

    done = transfer(moves, (lambda progress: None) if quiet else _bar())
    words = f"{done.files_done} files, {show.size(done.bytes_done)} copied"
    if alike:
        words += f"; {alike} were alike already"
    data = {"files": done.files_done, "bytes": done.bytes_done, "alike": alike}
    return Result(words, None, {**data, "seconds": round(done.seconds, 3)})


def _bar() -> Callable[[Progress], None]:
    """A progress bar where the cell's output is; shown a few times a second."""
    from IPython.display import display

    handle: Any = None
    last = 0.0

    def update(progress: Progress) -> None:
        nonlocal handle, last
        now, finished = time.monotonic(), progress.files_done == progress.files
        if handle is None:
            handle = display(_picture(progress), display_id=True)
        elif handle is not None and (finished or now - last >= SHOW_SECONDS):
            last = now
            handle.update(_picture(progress))

    return update


def _picture(progress: Progress) -> Result:
    whole = max(progress.bytes, 1)
    percent = 100.0 if progress.files_done == progress.files else 100 * progress.bytes_done / whole
    percent = min(max(percent, 0.0), 100.0)
    speed = progress.bytes_done / max(progress.seconds, 0.001)
    words = (
        f"{progress.files_done} of {progress.files} files, {show.size(progress.bytes_done)} of "
        f"{show.size(progress.bytes)}, {show.size(int(speed))}/s"
    )
    filled = int(percent / 5)
    text = f"[{'#' * filled}{'.' * (20 - filled)}] {percent:3.0f} %  {words}"
    return Result(text, show.meter("copied", percent, words))


# --- a new key


def _rotate(options: argparse.Namespace) -> Result:
    server, _ = own_server()
    told = server.request("POST", "gpucloud/api/s3/credentials", json={})
    file = KeyFile.of_environment()
    if file is None:
        return Result("The key is renewed. Restart this server: it holds the old one.", None, told)
    deadline = time.monotonic() + SWITCH_SECONDS
    while (keys := file.read()) is None or keys[0] != told["access_key"]:
        if time.monotonic() > deadline:
            words = "The key is renewed and the old one is dead, but the new one has not come here."
            return Result(
                f"{words} It takes a minute or two; else restart this server.", None, told
            )
        time.sleep(0.2)
    return Result(
        f"The key is {told['access_key']} now; the old one is dead. Kernels of this server go on "
        "with the new one; other programs that run keep the old one until they are started again.",
        None,
        told,
    )


_RUN: dict[str | None, Callable[[argparse.Namespace], Result]] = {
    None: _show,
    "ls": _ls,
    "cp": _cp,
    "sync": _sync,
    "rotate": _rotate,
}


def complete(word: str) -> list[str]:
    """Drives and the folders in them would be asked of the store: only the drives are."""
    return [f"{name}/" for name in drives() if name.startswith(word)]


COMMAND = Command(
    "s3",
    "Your data in S3: where, how much, from elsewhere; list and copy",
    run,
    add_options,
    complete,
    examples=(
        "%gpucloud s3                        # bucket, endpoint, usage, snippets for other tools",
        "%gpucloud s3 --show-secret          # the snippets with your key, ready to paste",
        "%gpucloud s3 ls s3/data",
        "%gpucloud s3 cp model.keras s3/models/",
        "%gpucloud s3 cp -r s3/data .        # a whole folder, as on a disk: makes ./data",
        "%gpucloud s3 sync data s3/data      # only what differs; deletes nothing",
        "%gpucloud s3 rotate                 # a new key; the old one is dead at once",
    ),
)
