"""Every verb of the contents API against the `s3/` drive: what jupyter-server's own tests expect of
a contents manager."""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Any

import nbformat
import pytest

from .servers import Drive

NAMES = [
    "a b.txt",
    "ünï/日本 ä.txt",
    "a+b.txt",
    "a%20b.txt",
    "100%.txt",
    "q'\"x.txt",
    "#h?q=1&.txt",
    "back\\slash.txt",
    "e\u0301.txt",
]


def notebook(*sources: str) -> Any:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return nbformat.v4.new_notebook(cells=cells)


def test_a_listing_shows_files_notebooks_and_folders(drive: Drive) -> None:
    drive.put("a.txt", b"12345")
    drive.put("n.ipynb", nbformat.writes(notebook("1")).encode())
    drive.put("sub/deeper/b.txt")
    model = drive.api.get(drive.s3)
    assert (model["type"], model["format"], model["path"]) == ("directory", "json", drive.s3)
    found = {entry["name"]: entry for entry in model["content"]}
    assert sorted(found) == ["a.txt", "n.ipynb", "sub"]
    assert [found[n]["type"] for n in sorted(found)] == ["file", "notebook", "directory"]
    assert found["a.txt"]["size"] == 5
    assert found["a.txt"]["mimetype"] == "text/plain"
    assert found["a.txt"]["path"] == f"{drive.s3}/a.txt"
    assert all(entry["content"] is None and entry["writable"] for entry in found.values())
    assert drive.api.names(f"{drive.s3}/sub") == ["deeper"]


def test_the_root_shows_home_and_drives(drive: Drive) -> None:
    (drive.api.home / f"{drive.name}.txt").write_text("home")
    names = drive.api.names("")
    assert {"s3", "s3-vision", drive.name, f"{drive.name}.txt"} <= set(names)
    assert drive.api.get("s3", content=0)["type"] == "directory"


def test_a_file_is_read_as_text_or_base64(drive: Drive) -> None:
    drive.put("t.txt", "Grüße\n".encode())
    drive.put("b.bin", b"\xff\x00\xfe")
    text = drive.api.get(f"{drive.s3}/t.txt")
    assert (text["content"], text["format"], text["type"]) == ("Grüße\n", "text", "file")
    binary = drive.api.get(f"{drive.s3}/b.bin")
    assert binary["format"] == "base64"
    assert base64.b64decode(binary["content"]) == b"\xff\x00\xfe"
    forced = drive.api.get(f"{drive.s3}/t.txt", type="file", format="base64")
    assert base64.b64decode(forced["content"]) == "Grüße\n".encode()
    assert drive.api.get(f"{drive.s3}/t.txt", content=0)["content"] is None


def test_a_notebook_is_read_as_json_or_as_a_file(drive: Drive) -> None:
    drive.put("n.ipynb", nbformat.writes(notebook("print(1)")).encode())
    model = drive.api.get(f"{drive.s3}/n.ipynb")
    assert (model["type"], model["format"], model["mimetype"]) == ("notebook", "json", None)
    assert model["content"]["cells"][0]["source"] == "print(1)"
    raw = drive.api.get(f"{drive.s3}/n.ipynb", type="file", format="text")
    assert raw["type"] == "file"
    assert "print(1)" in raw["content"]


def test_wrong_types_and_formats_are_refused(drive: Drive) -> None:
    drive.put("sub/x.txt")
    drive.put("b.bin", b"\xff\x00")
    drive.put("bad.ipynb", b"{")
    refusal = drive.api.refusal
    assert refusal("GET", f"{drive.s3}/b.bin", params={"type": "directory"})[0] == 400
    assert refusal("GET", f"{drive.s3}/sub", params={"type": "file"})[0] == 400
    assert refusal("GET", f"{drive.s3}/sub", params={"type": "notebook"})[0] == 400
    query = {"type": "file", "format": "text"}
    assert refusal("GET", f"{drive.s3}/b.bin", params=query)[0] == 400
    assert refusal("GET", f"{drive.s3}/bad.ipynb")[0] == 400
    assert refusal("GET", f"{drive.s3}/nothing.txt")[0] == 404
    assert refusal("GET", f"{drive.s3}/nothing/at/all", params={"type": "directory"})[0] == 404


def test_hashes_are_of_the_content(drive: Drive) -> None:
    wanted = hashlib.sha256(b"one").hexdigest()
    drive.put("h.txt", b"one")
    for content in (0, 1, 0):
        model = drive.api.get(f"{drive.s3}/h.txt", hash=1, content=content)
        assert (model["hash"], model["hash_algorithm"]) == (wanted, "sha256")
    drive.put("h.txt", b"two")
    model = drive.api.get(f"{drive.s3}/h.txt", hash=1, content=0)
    assert model["hash"] == hashlib.sha256(b"two").hexdigest()
    assert drive.api.get(f"{drive.s3}/h.txt")["hash"] is None


def test_save_and_save_again(drive: Drive) -> None:
    saved = drive.api.put(f"{drive.s3}/a.txt", "one")
    assert (saved["content"], saved["size"], saved["type"]) == (None, 3, "file")
    assert drive.read("a.txt") == b"one"
    drive.api.put(f"{drive.s3}/a.txt", base64.b64encode(b"\xff\xfe").decode(), format="base64")
    assert drive.read("a.txt") == b"\xff\xfe"
    fresh = drive.api.get(f"{drive.s3}/a.txt", content=0)
    listed = drive.api.get(drive.s3)["content"][0]
    assert fresh["last_modified"] == listed["last_modified"]
    age = datetime.now().astimezone() - datetime.fromisoformat(fresh["last_modified"])
    assert abs(age.total_seconds()) < 60


def test_save_a_notebook_keeps_a_checkpoint(drive: Drive) -> None:
    path = f"{drive.s3}/n.ipynb"
    drive.api.put(path, notebook("1"), type="notebook", format="json")
    assert nbformat.reads(drive.read("n.ipynb").decode(), 4).cells[0].source == "1"
    assert [c["id"] for c in drive.api.get(f"{path}/checkpoints")] == ["checkpoint"]


def test_save_only_into_folders_that_exist(drive: Drive) -> None:
    body = {"type": "file", "format": "text", "content": "x"}
    drive.put("file.txt")
    for path in ("no/such/a.txt", "file.txt/a.txt"):
        assert drive.api.refusal("PUT", f"{drive.s3}/{path}", json=body)[0] == 404
    drive.put("folder/x.txt")
    status, words = drive.api.refusal("PUT", f"{drive.s3}/folder", json=body)
    assert (status, "is a directory" in words) == (400, True)
    assert drive.read("folder/x.txt") == b"data"
    assert sorted(drive.found()) == ["file.txt", "folder/x.txt"]


@pytest.mark.parametrize(
    "body",
    [
        {"type": "file", "format": "text"},
        {"type": "file", "format": "json", "content": "x"},
        {"type": "file", "format": "base64", "content": "a"},
        {"type": "notebook", "format": "json", "content": "no notebook"},
    ],
)
def test_bad_models_are_refused(drive: Drive, body: dict[str, Any]) -> None:
    body = {"path": f"{drive.s3}/x", **body}
    if "content" not in body:
        drive.put("x")  # jupyter-server fills new files in
    assert drive.api.refusal("PUT", f"{drive.s3}/x", json=body)[0] == 400


def test_new_untitled_things_get_free_names(drive: Drive) -> None:
    def new(**body: Any) -> str:
        answer = drive.api.call("POST", drive.s3, json=body)
        assert answer.status_code == 201, answer.text
        assert answer.headers["Location"].startswith("/api/contents/s3/")
        return str(answer.json()["name"])

    assert [new(type="notebook"), new(type="notebook")] == ["Untitled.ipynb", "Untitled1.ipynb"]
    assert [new(ext=".py"), new(ext=".py")] == ["untitled.py", "untitled1.py"]
    folders = [new(type="directory"), new(type="directory")]
    assert folders == ["Untitled Folder", "Untitled Folder 1"]
    assert drive.api.names(f"{drive.s3}/Untitled Folder") == []
    assert drive.api.refusal("POST", f"{drive.s3}/nowhere", json={"type": "file"})[0] == 404


def test_an_empty_folder_stays_one(drive: Drive) -> None:
    drive.api.mkdir(f"{drive.s3}/empty")
    drive.api.mkdir(f"{drive.s3}/empty")
    assert drive.api.names(drive.s3) == ["empty"]
    assert drive.api.names(f"{drive.s3}/empty") == []
    assert drive.api.refusal("PUT", f"{drive.s3}/a/b", json={"type": "directory"})[0] == 404


def test_rename_a_file(drive: Drive) -> None:
    drive.put("a.txt", b"one")
    drive.api.mkdir(f"{drive.s3}/to")
    model = drive.api.rename(f"{drive.s3}/a.txt", f"{drive.s3}/to/b.txt")
    assert (model["path"], model["name"]) == (f"{drive.s3}/to/b.txt", "b.txt")
    assert drive.found() == ["to/b.txt"]
    assert drive.read("to/b.txt") == b"one"


def test_rename_refuses_what_would_lose_something(drive: Drive) -> None:
    drive.put("a.txt", b"one")
    drive.put("b.txt", b"two")
    drive.put("d/x.txt")
    drive.put("e/y.txt")

    def refused(old: str, new: str) -> int:
        body = {"path": f"{drive.s3}/{new}"}
        return drive.api.refusal("PATCH", f"{drive.s3}/{old}", json=body)[0]

    assert refused("a.txt", "b.txt") == 409
    assert refused("a.txt", "d") == 409
    assert refused("d", "e") == 409
    assert refused("d", "d/inside") == 400
    assert refused("a.txt", "no/such/folder.txt") == 404
    assert refused("nothing.txt", "c.txt") == 404
    assert refused("a.txt", ".hidden") == 400
    assert sorted(drive.found()) == ["a.txt", "b.txt", "d/x.txt", "e/y.txt"]
    assert (drive.read("a.txt"), drive.read("b.txt")) == (b"one", b"two")


def test_rename_a_folder_takes_exactly_its_own(drive: Drive) -> None:
    for key in ("alice/a.txt", "alice/deep/er/b.txt", "alice-2/c.txt", "alice.txt"):
        drive.put(key, key.encode())
    drive.api.mkdir(f"{drive.s3}/alice/empty")
    drive.api.rename(f"{drive.s3}/alice", f"{drive.s3}/bob")
    wanted = ["alice-2/c.txt", "alice.txt", "bob/a.txt", "bob/deep/er/b.txt"]
    assert sorted(drive.found()) == wanted
    assert drive.read("bob/deep/er/b.txt") == b"alice/deep/er/b.txt"
    assert drive.api.names(f"{drive.s3}/bob") == ["a.txt", "deep", "empty"]
    assert drive.api.names(drive.s3) == ["alice-2", "alice.txt", "bob"]


def test_delete_files_and_folders(drive: Drive) -> None:
    for key in ("alice/a.txt", "alice/deep/b.txt", "alice-2/c.txt", "d.txt"):
        drive.put(key)
    drive.api.delete(f"{drive.s3}/d.txt")
    drive.api.delete(f"{drive.s3}/alice")
    assert drive.found() == ["alice-2/c.txt"]
    drive.api.delete(f"{drive.s3}/alice-2/c.txt")
    assert drive.api.names(drive.s3) == ["alice-2"], "its last file went, the folder did not"
    assert drive.api.refusal("DELETE", f"{drive.s3}/nothing")[0] == 404
    assert drive.api.refusal("DELETE", "s3")[0] == 400


def test_copy_files_and_folders(drive: Drive) -> None:
    drive.put("a.tar.gz", b"one")
    drive.put("d/x.txt", b"two")
    assert drive.api.copy(f"{drive.s3}/a.tar.gz", drive.s3)["name"] == "a-Copy1.tar.gz"
    assert drive.api.copy(f"{drive.s3}/a.tar.gz", drive.s3)["name"] == "a-Copy2.tar.gz"
    assert drive.api.copy(f"{drive.s3}/a.tar.gz", f"{drive.s3}/d")["name"] == "a.tar.gz"
    assert drive.api.copy(f"{drive.s3}/d", drive.s3)["type"] == "directory"
    assert drive.read("d-Copy1/x.txt") == b"two"
    assert drive.read("a-Copy2.tar.gz") == b"one"
    body = {"copy_from": f"{drive.s3}/a.tar.gz"}
    assert drive.api.refusal("POST", f"{drive.s3}/no/where", json=body)[0] == 404
    body = {"copy_from": f"{drive.s3}/nothing"}
    assert drive.api.refusal("POST", drive.s3, json=body)[0] == 404


def test_checkpoints_are_in_the_bucket(drive: Drive) -> None:
    path = f"{drive.s3}/a.txt"
    drive.api.put(path, "one")
    made = drive.api.call("POST", f"{path}/checkpoints")
    assert made.status_code == 201
    drive.api.put(path, "two")
    assert drive.api.call("POST", f"{path}/checkpoints/checkpoint").status_code == 204
    assert drive.read("a.txt") == b"one"
    drive.api.rename(path, f"{drive.s3}/b.txt")
    assert drive.api.get(f"{path}/checkpoints") == []
    assert len(drive.api.get(f"{drive.s3}/b.txt/checkpoints")) == 1
    gone = drive.api.call("DELETE", f"{drive.s3}/b.txt/checkpoints/checkpoint")
    assert gone.status_code == 204
    assert drive.api.refusal("POST", f"{drive.s3}/b.txt/checkpoints/checkpoint")[0] == 404
    assert drive.api.refusal("POST", f"{drive.s3}/nothing/checkpoints")[0] == 404


def test_checkpoints_follow_folders_and_end_with_them(drive: Drive) -> None:
    drive.api.mkdir(f"{drive.s3}/d")
    drive.api.put(f"{drive.s3}/d/a.txt", "one")
    drive.api.call("POST", f"{drive.s3}/d/a.txt/checkpoints")
    drive.api.rename(f"{drive.s3}/d", f"{drive.s3}/e")
    assert len(drive.api.get(f"{drive.s3}/e/a.txt/checkpoints")) == 1
    drive.api.delete(f"{drive.s3}/e")
    drive.api.mkdir(f"{drive.s3}/e")
    drive.api.put(f"{drive.s3}/e/a.txt", "new")
    assert drive.api.get(f"{drive.s3}/e/a.txt/checkpoints") == []


@pytest.mark.parametrize("name", NAMES)
def test_any_name_goes_through_every_verb(drive: Drive, name: str) -> None:
    if "/" in name:
        drive.api.mkdir(f"{drive.s3}/{name.split('/')[0]}")
    path = f"{drive.s3}/{name}"
    assert drive.api.put(path, name)["path"] == path
    assert drive.found() == [name]
    assert drive.api.get(path)["content"] == name
    assert drive.api.files(path).text == name
    assert name.rsplit("/", 1)[-1] in drive.api.names(path.rsplit("/", 1)[0])
    copied = drive.api.copy(path, drive.s3)["path"]
    assert drive.api.get(copied)["content"] == name
    drive.api.rename(path, f"{drive.s3}/{name.rsplit('/', 1)[-1]}.moved")
    drive.api.delete(copied)
    assert drive.found() == [f"{name.rsplit('/', 1)[-1]}.moved"]


def test_paths_cannot_leave_the_drive(drive: Drive) -> None:
    drive.put("a.txt")
    for path in ("..%2f..%2fx", "%2e%2e", "x%2f..%2f..%2f..%2fetc"):
        for area in ("api/contents", "files"):
            answer = drive.api.http.get(f"/{area}/{drive.s3}/{path}")
            assert answer.status_code in (400, 403, 404), answer.text
    body = {"path": f"{drive.s3}/../../../../tmp/x"}
    assert drive.api.refusal("PATCH", f"{drive.s3}/a.txt", json=body)[0] == 400
    assert drive.found() == ["a.txt"]


def test_hidden_things_are_hidden(drive: Drive) -> None:
    drive.put(".secret/a.txt")
    drive.put(".hidden.txt")
    drive.put("seen.txt")
    drive.put("cache.pyc")
    assert drive.api.names(drive.s3) == ["seen.txt"]
    for path in (".secret/a.txt", ".hidden.txt"):
        assert drive.api.refusal("GET", f"{drive.s3}/{path}")[0] == 404
        assert drive.api.files(f"{drive.s3}/{path}").status_code == 404
        assert drive.api.refusal("DELETE", f"{drive.s3}/{path}")[0] == 400
        body = {"type": "file", "format": "text", "content": "x"}
        assert drive.api.refusal("PUT", f"{drive.s3}/{path}", json=body)[0] == 400
    assert drive.read(".secret/a.txt") == b"data"
    assert ".gpucloud" not in drive.api.names("s3")
    assert drive.api.refusal("GET", "s3/.gpucloud")[0] == 404


def test_team_buckets_are_beside_the_own(drive: Drive) -> None:
    drive.put("a.txt", b"team", bucket="team-vision")
    team = f"s3-vision/{drive.name}"
    assert drive.api.names(team) == ["a.txt"]
    drive.api.rename(f"{team}/a.txt", f"{drive.s3}/mine.txt")
    assert drive.read("mine.txt") == b"team"
    assert drive.found(bucket="team-vision") == []
    drive.api.copy(f"{drive.s3}/mine.txt", team)
    assert drive.read("mine.txt", bucket="team-vision") == b"team"
    drive.api.delete(team)


def test_a_big_notebook_is_saved_and_opened(drive: Drive) -> None:
    big = notebook("1")
    output = nbformat.v4.new_output("stream", text="x" * 50_000_000)
    big.cells[0].outputs = [output]
    path = f"{drive.s3}/big.ipynb"
    assert drive.api.put(path, big, type="notebook", format="json")["size"] > 50_000_000
    opened = drive.api.get(path)["content"]
    assert len("".join(opened["cells"][0]["outputs"][0]["text"])) == 50_000_000
