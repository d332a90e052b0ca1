"""Downloads from a server on this machine, unpacking, and the command `snr data`."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import data_copies
import pytest

from snrlib.cli.main import main
from snrlib.data import SOURCES, load
from snrlib.data.fetch.download import download, fetch
from snrlib.data.fetch.source import Archive, Source
from snrlib.data.fetch.unpack import unpack
from snrlib.data.sets.cub200 import CUB200


class Server(ThreadingHTTPServer):
    """Files by path; can cut a connection, ignore Range, or answer with an error. Records what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.cut_after: list[int] = []  # bytes sent before each of the next connections breaks
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        self.encodings: set[str | None] = set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        self.server.encodings.add(self.headers.get("Accept-Encoding"))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.cut_after:
            body = body[: self.server.cut_after.pop(0)]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


CONTENT = bytes(range(256)) * 2000  # eight chunks of the download


def _archive(*urls: str, content: bytes = CONTENT) -> Archive:
    return Archive("birds.bin", urls, md5(content).hexdigest())


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# downloads


def test_a_file_is_downloaded_once_and_nothing_else_is_left(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    archive = _archive(server.url("/a"))
    assert download(archive, tmp_path).read_bytes() == CONTENT
    assert _left(tmp_path) == ["birds.bin"]
    download(archive, tmp_path)
    assert server.asked == [("/a", None)]
    assert server.encodings == {"identity"}, "else a server may pack the archive once more, and its MD5 is another"


def test_a_file_put_there_by_hand_is_taken_without_any_connection(tmp_path: Path) -> None:
    (tmp_path / "birds.bin").write_bytes(CONTENT)
    assert download(_archive("http://127.0.0.1:1/a"), tmp_path).read_bytes() == CONTENT


def test_a_damaged_file_in_place_is_replaced(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / "birds.bin").write_bytes(b"other")
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_is_left(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = b"<html>Please log in</html>"
    with pytest.raises(ConnectionError, match=r"/a gives a file whose MD5 is not the published one"):
        download(_archive(server.url("/a")), tmp_path)
    assert _left(tmp_path) == []


def test_a_cut_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.cut_after = [300_000, 100_000]
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT
    assert _left(tmp_path) == ["birds.bin"]
    starts = [int((wanted or "bytes=0-")[6:-1]) for _, wanted in server.asked]
    assert len(starts) == 3
    assert 0 == starts[0] < starts[1] < starts[2]
    assert starts[1] > 200_000, "what had come is kept, but for a last chunk"


def test_a_later_run_goes_on_with_what_an_interrupted_one_has_left(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / ".birds.bin.part").write_bytes(CONTENT[:1000])
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/a", "bytes=1000-")]


def test_a_server_without_range_sends_it_all_again_and_the_file_is_right(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.ranges = False
    server.cut_after = [300_000]
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2
    assert server.asked[1][1] is not None


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"x" * len(CONTENT), b"other"])
def test_a_part_that_is_whole_is_used_and_a_wrong_one_costs_a_fresh_start(
    server: Server, tmp_path: Path, part: bytes
) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / ".birds.bin.part").write_bytes(part)
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == (1 if part == CONTENT else 2)


def test_a_second_address_serves_when_the_first_is_dead_or_has_moved(server: Server, tmp_path: Path) -> None:
    server.files["/b"] = CONTENT
    server.files["/wrong"] = b"another file"
    for number, first in enumerate(["http://127.0.0.1:1/a", server.url("/gone"), server.url("/wrong")]):
        (tmp_path / str(number)).mkdir()
        path = download(_archive(first, server.url("/b")), tmp_path / str(number))
        assert path.read_bytes() == CONTENT


def test_a_second_address_goes_on_where_the_first_broke(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = server.files["/b"] = CONTENT
    server.cut_after = [200_000, 0]
    assert download(_archive(server.url("/a"), server.url("/b")), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1][0] == "/b"
    assert server.asked[-1][1] is not None


def test_what_has_come_before_the_last_address_broke_is_kept_and_said(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = CONTENT
    server.cut_after = [200_000, 0]
    with pytest.raises(ConnectionError, match=r"/a cannot be reached or breaks off .*\n.*the next run goes on from"):
        download(_archive(server.url("/a")), tmp_path)
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1][1] is not None


def test_a_404_is_named_with_its_address(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"404 Client Error: Not Found for url: http://127\.0\.0\.1:\d+/a"):
        download(_archive(server.url("/a")), tmp_path)
    assert len(server.asked) == 1


def test_the_bar_is_drawn_when_asked(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files["/a"] = CONTENT
    download(_archive(server.url("/a")), tmp_path, progress=True)
    assert "birds.bin: 100%" in capsys.readouterr().err


# a data set is fetched


def _birds(server: Server, tmp_path: Path, *urls: str) -> Source:
    """CUB-200-2011 as a small archive in its original layout."""
    made = tmp_path / "made"
    path = data_copies.tar(tmp_path / "CUB_200_2011.tgz", data_copies.cub_copy(made))
    server.files["/CUB_200_2011.tgz"] = path.read_bytes()
    archive = Archive(
        path.name, urls or (server.url("/CUB_200_2011.tgz"),), md5(path.read_bytes()).hexdigest(), ("CUB_200_2011",)
    )
    path.unlink()
    return replace(CUB200, archives=lambda: (archive,))


def test_a_data_set_is_fetched_unpacked_and_loads(server: Server, tmp_path: Path) -> None:
    source, root = _birds(server, tmp_path), tmp_path / "raw"
    assert fetch(source, root) == root / "cub200"
    assert len(load("cub200", root=root)) == 6
    (root / "cub200" / "CUB_200_2011.tgz").unlink()
    fetch(source, root)
    assert len(server.asked) == 1, "what is unpacked is not fetched again"


def test_offline_the_refusal_says_which_file_to_put_where_and_then_it_is_unpacked(
    server: Server, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    source = _birds(server, tmp_path, "http://127.0.0.1:1/CUB_200_2011.tgz")
    (archive,) = source.archives()
    with pytest.raises(ConnectionError) as caught:
        fetch(source, root)
    message = str(caught.value)
    assert "http://127.0.0.1:1/CUB_200_2011.tgz cannot be reached or breaks off (ConnectionError)" in message
    assert f"put CUB_200_2011.tgz (MD5 {archive.md5}) from {source.page} into {root / 'cub200'}" in message
    assert "snr data fetch cub200" in message
    (root / "cub200" / "CUB_200_2011.tgz").write_bytes(b"the wrong one")
    with pytest.raises(ConnectionError, match="is there, but its MD5 is not the published one"):
        fetch(source, root)
    (root / "cub200" / "CUB_200_2011.tgz").write_bytes(server.files["/CUB_200_2011.tgz"])
    fetch(source, root)
    assert len(load("cub200", root=root)) == 6


def test_two_that_fetch_at_once_download_once(server: Server, tmp_path: Path) -> None:
    source, root = _birds(server, tmp_path), tmp_path / "raw"
    threads = [threading.Thread(target=fetch, args=(source, root)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1
    assert len(load("cub200", root=root)) == 6


# unpacking


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


OUTSIDE = ["../evil", "/tmp/evil", "data/../../evil", "..\\evil", "C:\\evil", "\\evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_path_that_leaves_the_folder_is_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    if kind == "tar":
        path = _tar(tmp_path / "a.tgz", (tarfile.TarInfo("data/x"), b"1"), (tarfile.TarInfo(name), b"2"))
    else:
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data/x", b"1")
            archive.writestr(name, b"2")
    with pytest.raises(ValueError, match=r"is refused: its member .*evil' leaves the folder"):
        unpack(path, folder, ["data"])
    assert _left(folder) == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "data/x"])
def test_a_link_or_a_device_in_a_tar_is_refused_by_name(tmp_path: Path, kind: bytes, target: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = _tar(tmp_path / "a.tgz", (tarfile.TarInfo("data/x"), b"1"), (_link("data/evil", target, kind), b""))
    with pytest.raises(ValueError, match="its member 'data/evil' is a link or a device"):
        unpack(path, folder, ["data"])
    assert _left(folder) == []


def test_a_link_in_a_zip_is_refused_by_name(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("data/evil")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="its member 'data/evil' is a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path, ["data"])
    assert _left(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_only_what_is_wanted_is_unpacked_readable_and_whole(tmp_path: Path, kind: str) -> None:
    info = tarfile.TarInfo("data/deep/x")
    info.mode = 0
    members = [(info, b"1"), (tarfile.TarInfo("attributes.txt"), b"2"), (tarfile.TarInfo("./data/y"), b"3")]
    path = _tar(tmp_path / "a.tgz", *members)
    if kind == "zip":
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members:
                archive.writestr(member.name.removeprefix("./"), content)
    folder = tmp_path / "in"
    folder.mkdir()
    unpack(path, folder, ["data"])
    assert _left(folder) == ["data"]
    assert (folder / "data" / "deep" / "x").read_bytes() == b"1"
    assert (folder / "data" / "y").read_bytes() == b"3"
    assert (folder / "data" / "deep" / "x").stat().st_mode & 0o444 == 0o444
    with pytest.raises(FileExistsError, match="data is there already"):
        unpack(path, folder, ["data"])
    with pytest.raises(ValueError, match="does not hold other"):
        unpack(path, folder, ["other"])


@pytest.mark.parametrize("kind", ["tgz", "zip"])
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_archive_is_refused_by_name_and_leaves_nothing(tmp_path: Path, damage: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "tgz":
        _tar(path, (tarfile.TarInfo("data/x"), os.urandom(50_000)))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data/x", os.urandom(50_000))
    content = {"cut": path.read_bytes()[:30_000], "text": b"hello", "empty": b""}[damage]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.{kind}.* (is damaged|does not hold)"):
        unpack(path, tmp_path, ["data"])
    assert _left(tmp_path) == [path.name]


def test_a_killed_unpacking_leaves_nothing_half_done_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tgz", *((tarfile.TarInfo(f"data/{i}"), b"1") for i in range(10)))
    code = (
        "import os, pathlib, signal, sys, tarfile\n"
        "from snrlib.data.fetch.unpack import unpack\n"
        "extract, done = tarfile.TarFile.extract, []\n"
        "def dying(self, *a, **k):\n"
        "    extract(self, *a, **k); done.append(1)\n"
        "    if len(done) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tarfile.TarFile.extract = dying\n"
        "path = pathlib.Path(sys.argv[1]); unpack(path, path.parent, ['data'])"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)])
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "data").exists()
    assert len(_left(tmp_path)) == 2, "its temporary folder"
    unpack(path, tmp_path, ["data"])
    assert _left(tmp_path) == ["a.tgz", "data"]
    assert len(_left(tmp_path / "data")) == 10


# the command


def test_the_list_shows_every_data_set_and_which_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_copies.cub_copy(tmp_path)
    assert main(["data", "list", "--root", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    for name in ("glyphs", "digits", "cub_features", "folder", *SOURCES):
        assert f"\n{name} " in output
    assert output.count("found: ") == 1
    assert str(tmp_path / "CUB_200_2011") in output


def test_fetch_downloads_and_says_where(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SOURCES, "cub200", _birds(server, tmp_path))
    monkeypatch.setenv("SNR_DATA", str(tmp_path / "raw"))
    assert main(["data", "fetch", "cub200"]) == 0
    assert capsys.readouterr().out == f"cub200 is in {tmp_path / 'raw' / 'cub200'}\n"
    assert len(load("cub200")) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "digits"], "comes with scikit-learn, nothing to fetch"),
        (["fetch", "cub_features"], "in data/reference, nothing to fetch"),
        (["fetch", "bird"], "unknown data set 'bird'; choose from glyphs"),
        (["check", "bird"], "unknown data set 'bird'; choose from glyphs"),
        (["check", "sop"], "sop is not there"),
        (["check", "folder"], "needs root=PATH"),
    ],
)
def test_what_cannot_be_done_is_refused_with_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("SNR_DATA", str(tmp_path))
    assert main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


def _checked(root: Path, capsys: pytest.CaptureFixture[str], name: str = "cub200") -> tuple[int, str]:
    status = main(["data", "check", name, "--root", str(root)])
    return status, capsys.readouterr().out


def test_check_opens_every_image_and_a_partial_copy_is_not_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_copies.cub_copy(tmp_path)
    status, output = _checked(tmp_path, capsys)
    assert status == 0
    assert "a part of the published 5,864 of 100" in output
    assert output.count("every image can be opened") == 2
    assert output.endswith("cub200: nothing is damaged\n")


@pytest.mark.parametrize("damage", ["image", "list", "numbers", "archive"])
def test_check_ends_with_status_1_and_names_the_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folder = data_copies.cub_copy(tmp_path, classes=200 if damage == "numbers" else 4)
    if damage == "image":
        (folder / "images" / "004.Bird_4" / "Bird_4_1.jpg").write_bytes(b"no image")
        message = "Bird_4_1.jpg cannot be read as an image"
    elif damage == "list":
        (folder / "images" / "004.Bird_4" / "Bird_4_1.jpg").unlink()
        message = "1 of 12 in"
    elif damage == "numbers":
        message = "published are 5,864 of 100"
    else:
        (tmp_path / "cub200").mkdir()
        (tmp_path / "cub200" / "CUB_200_2011.tgz").write_bytes(b"cut")
        message = "CUB_200_2011.tgz: DAMAGED: another MD5"
    status, output = _checked(tmp_path, capsys)
    assert status == 1
    assert message in output
    assert output.endswith("cub200: damaged\n")


def test_check_finds_the_published_numbers_and_archive_right(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = replace(_birds(server, tmp_path), train=(6, 2), test=(6, 2))
    monkeypatch.setitem(SOURCES, "cub200", source)
    fetch(source, tmp_path / "raw")
    status, output = _checked(tmp_path / "raw", capsys)
    assert status == 0
    assert output.count("as published") == 2
    assert "CUB_200_2011.tgz: the published MD5" in output


def test_check_looks_at_data_sets_without_a_source_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _checked(tmp_path, capsys, "digits")[0] == 0
    for number in range(4):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "a.png").write_bytes(data_copies.png(number))
    assert _checked(tmp_path, capsys, "folder")[0] == 0
    (tmp_path / "2" / "a.png").write_bytes(b"no image")
    assert _checked(tmp_path, capsys, "folder")[0] == 1
