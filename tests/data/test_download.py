"""Downloads from a server on this machine, unpacking, and the command `snr data`."""

import io
import os
import signal
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import data_copies
import pytest
from study_cases import forked

from snrlib.cli.main import main
from snrlib.data import SOURCES, load
from snrlib.data.fetch.download import download, fetch
from snrlib.data.fetch.source import Archive, Source
from snrlib.data.fetch.unpack import unpack
from snrlib.data.sets.cub200 import CUB200


class Server(ThreadingHTTPServer):
    """Files by path; can cut a connection, or ignore Range. Records what was asked."""

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
        content = self.server.files.get(self.path, b"")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.ranges else 0
        if not content or start >= len(content):
            self.send_error(416 if content else 404)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : start + self.server.cut_after.pop(0) if self.server.cut_after else None])

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


Capture = pytest.CaptureFixture[str]
CONTENT = bytes(range(256)) * 2000  # eight chunks of the download


def _archive(*urls: str, content: bytes = CONTENT) -> Archive:
    return Archive("birds.bin", urls, md5(content).hexdigest())


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_downloaded_once_and_alone(server: Server, tmp_path: Path, capsys: Capture) -> None:
    server.files["/a"] = CONTENT
    archive = _archive(server.url("/a"))
    assert download(archive, tmp_path, progress=True).read_bytes() == CONTENT
    assert "birds.bin: 100%" in capsys.readouterr().err
    assert _left(tmp_path) == ["birds.bin"]
    download(archive, tmp_path)
    download(_archive("http://127.0.0.1:1/a"), tmp_path)  # as it is if put there by hand
    assert server.asked == [("/a", None)]
    assert server.encodings == {"identity"}, "else a server may pack the archive once more, and its MD5 is another"
    (tmp_path / "birds.bin").write_bytes(b"damaged")
    assert download(archive, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.files["/a"] = CONTENT
    server.ranges = ranges  # without, it sends all of it again
    server.cut_after = [300_000, 100_000] if ranges else [300_000]
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT
    assert _left(tmp_path) == ["birds.bin"]
    starts = [int((wanted or "bytes=0-")[6:-1]) for _, wanted in server.asked]
    assert len(starts) == (3 if ranges else 2)
    assert starts == sorted(set(starts))
    assert starts[1] > 200_000, "what had come is kept, but for a last chunk"


@pytest.mark.parametrize(
    ("part", "asked"),
    [
        (CONTENT[:1000], ["bytes=1000-"]),
        (CONTENT, [f"bytes={len(CONTENT)}-"]),
        (CONTENT + b"more", [f"bytes={len(CONTENT) + 4}-", None]),
        (b"x" * len(CONTENT), [f"bytes={len(CONTENT)}-", None]),
        (b"other", ["bytes=5-", None]),
    ],
    ids=["beginning", "whole", "too long", "of another file", "beginning of another file"],
)
def test_a_part_is_gone_on_from_if_right(server: Server, tmp_path: Path, part: bytes, asked: list[str | None]) -> None:
    server.files["/a"] = CONTENT
    (tmp_path / ".birds.bin.part").write_bytes(part)
    assert download(_archive(server.url("/a")), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("/a", wanted) for wanted in asked]


@pytest.mark.parametrize("first", ["http://127.0.0.1:1/a", "/gone", "/wrong"])
def test_a_second_address_serves_when_the_first_fails(server: Server, tmp_path: Path, first: str) -> None:
    server.files |= {"/b": CONTENT, "/wrong": b"another file"}
    urls = (server.url(first) if first.startswith("/") else first, server.url("/b"))
    assert download(_archive(*urls), tmp_path).read_bytes() == CONTENT


def test_what_has_come_is_kept_said_and_used(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = server.files["/b"] = CONTENT
    server.cut_after = [200_000, 0]
    with pytest.raises(ConnectionError, match=r"/a cannot be reached or breaks off .*\n.*the next run goes on from"):
        download(_archive(server.url("/a")), tmp_path)
    server.cut_after = [0]
    assert download(_archive(server.url("/a"), server.url("/b")), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/a", "/a", "/a", "/b"]
    assert all(wanted for _, wanted in server.asked[1:])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/gone", r"404 Client Error: Not Found for url: http://127\.0\.0\.1:\d+/gone"),
        ("/a", "/a gives a file whose MD5 is not the published one"),
    ],
)
def test_what_is_not_the_file_is_refused(server: Server, tmp_path: Path, path: str, message: str) -> None:
    server.files["/a"] = b"<html>Please log in</html>"
    with pytest.raises(ConnectionError, match=message):
        download(_archive(server.url(path)), tmp_path)
    assert len(server.asked) == 1
    assert _left(tmp_path) == []


def _birds(server: Server, tmp_path: Path, *urls: str) -> Source:
    """CUB-200-2011 as a small archive in its original layout."""
    path = data_copies.tar(tmp_path / "CUB_200_2011.tgz", data_copies.cub_copy(tmp_path / "made"))
    content = server.files["/CUB_200_2011.tgz"] = path.read_bytes()
    path.unlink()
    urls = urls or (server.url("/CUB_200_2011.tgz"),)
    archive = Archive(path.name, urls, md5(content).hexdigest(), ("CUB_200_2011",))
    return replace(CUB200, archives=lambda: (archive,), train=(6, 2), test=(6, 2))


def test_offline_the_refusal_says_what_to_do(server: Server, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    source = _birds(server, tmp_path, "http://127.0.0.1:1/CUB_200_2011.tgz")
    (archive,) = source.archives()
    with pytest.raises(ConnectionError) as caught:
        fetch(source, root)
    for said in (
        "http://127.0.0.1:1/CUB_200_2011.tgz cannot be reached or breaks off (ConnectionError)",
        f"put CUB_200_2011.tgz (MD5 {archive.md5}) from {source.page} into {root / 'cub200'}",
        "snr data fetch cub200",
    ):
        assert said in str(caught.value)
    (root / "cub200" / "CUB_200_2011.tgz").write_bytes(b"the wrong one")
    with pytest.raises(ConnectionError, match="is there, but its MD5 is not the published one"):
        fetch(source, root)
    (root / "cub200" / "CUB_200_2011.tgz").write_bytes(server.files["/CUB_200_2011.tgz"])
    fetch(source, root)
    assert len(load("cub200", root=root)) == 6


def test_those_that_fetch_at_once_download_once(server: Server, tmp_path: Path) -> None:
    source, root = _birds(server, tmp_path), tmp_path / "raw"
    threads = [threading.Thread(target=fetch, args=(source, root)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load("cub200", root=root)) == 6
    (root / "cub200" / "CUB_200_2011.tgz").unlink()
    fetch(source, root)
    assert len(server.asked) == 1, "what is unpacked is not fetched again"


def _packed(path: Path, members: dict[str, bytes], link: bytes | None = None) -> Path:
    """A tar or a zip, by the ending of its name, with a link data/evil; in a tar no file may be read."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            if link:
                evil = zipfile.ZipInfo("data/evil")
                evil.external_attr = 0o120777 << 16
                archive.writestr(evil, "data/x")
        return path
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0
            tar.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo("data/evil")
            info.type, info.linkname = link, "data/x"
            tar.addfile(info)
    return path


OUTSIDE = ["../evil", "/tmp/evil", "data/../../evil", "..\\evil", "C:\\evil", "\\evil"]
LINKS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_archives_that_reach_outside_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    cases = [({name: b"2"}, None, ".*evil' leaves the folder") for name in OUTSIDE]
    for member, link, message in cases + [({}, link, "'data/evil' is a link or a device") for link in LINKS]:
        path = _packed(tmp_path / f"a.{kind}", {"data/x": b"1"} | member, link)
        with pytest.raises(ValueError, match=f"is refused: its member {message}"):
            unpack(path, tmp_path / "in", ["data"])
        assert _left(tmp_path) == [path.name, "in"]
        assert _left(tmp_path / "in") == []


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_only_what_is_wanted_is_unpacked_readable(tmp_path: Path, kind: str) -> None:
    members = {"data/deep/x": b"1", "attributes.txt": b"2", "./data/y" if kind == "tgz" else "data/y": b"3"}
    path, folder = _packed(tmp_path / f"a.{kind}", members), tmp_path / "in"
    folder.mkdir()
    unpack(path, folder, ["data"])
    assert _left(folder) == ["data"]
    assert (folder / "data" / "deep" / "x").read_bytes() == b"1"
    assert (folder / "data" / "y").stat().st_mode & 0o444 == 0o444
    with pytest.raises(FileExistsError, match="data is there already"):
        unpack(path, folder, ["data"])
    with pytest.raises(ValueError, match="does not hold other"):
        unpack(path, folder, ["other"])


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_damaged_archives_are_refused_and_leave_nothing(tmp_path: Path, kind: str) -> None:
    path = _packed(tmp_path / f"a.{kind}", {"data/x": os.urandom(50_000)})
    for content in (path.read_bytes()[:30_000], b"hello", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a\.{kind}.* (is damaged|does not hold)"):
            unpack(path, tmp_path, ["data"])
        assert _left(tmp_path) == [path.name]


def test_after_a_killed_unpacking_the_next_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _packed(tmp_path / "a.tgz", {f"data/{i}": b"1" for i in range(10)})
    extract, done = tarfile.TarFile.extract, []

    def dying(*given: Any, **named: Any) -> None:
        extract(*given, **named)
        done.append(1)
        if len(done) == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(tarfile.TarFile, "extract", dying)
        killed = forked(lambda: unpack(path, tmp_path, ["data"]), Path(os.devnull))
        killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not (tmp_path / "data").exists()
    assert len(_left(tmp_path)) == 2, "its temporary folder"
    unpack(path, tmp_path, ["data"])
    assert _left(tmp_path) == ["a.tgz", "data"]
    assert len(_left(tmp_path / "data")) == 10


def _checked(root: Path, capsys: Capture, name: str = "cub200") -> tuple[int, str]:
    status = main(["data", "check", name, "--root", str(root)])
    return status, capsys.readouterr().out


def test_the_list_says_which_is_there(tmp_path: Path, capsys: Capture) -> None:
    data_copies.cub_copy(tmp_path)
    assert main(["data", "list", "--root", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    for name in ("glyphs", "digits", "cub_features", "cub_features_40", "cars_features", "folder", *SOURCES):
        assert f"\n{name} " in output
    assert output.count("found: ") == 1
    assert str(tmp_path / "CUB_200_2011") in output


def test_what_is_fetched_loads_and_is_as_published(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(SOURCES, "cub200", _birds(server, tmp_path))
    monkeypatch.setenv("SNR_DATA", str(tmp_path / "raw"))
    assert main(["data", "fetch", "cub200"]) == 0
    assert capsys.readouterr().out == f"cub200 is in {tmp_path / 'raw' / 'cub200'}\n"
    assert len(load("cub200")) == 6
    status, output = _checked(tmp_path / "raw", capsys)
    assert status == 0
    assert output.count("as published") == 2
    assert "CUB_200_2011.tgz: the published MD5" in output


def test_what_cannot_be_done_has_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("SNR_DATA", str(tmp_path))
    for task, name, message in (
        ("fetch", "digits", "comes with scikit-learn, nothing to fetch"),
        ("fetch", "cub_features", "in data/reference, nothing to fetch"),
        ("fetch", "bird", "unknown data set 'bird'; choose from glyphs"),
        ("check", "bird", "unknown data set 'bird'; choose from glyphs"),
        ("check", "sop", "sop is not there"),
        ("check", "folder", "needs root=PATH"),
    ):
        assert main(["data", task, name]) == 2
        assert message in capsys.readouterr().err


def test_check_opens_images_and_partial_is_not_damaged(tmp_path: Path, capsys: Capture) -> None:
    data_copies.cub_copy(tmp_path)
    status, output = _checked(tmp_path, capsys)
    assert status == 0
    assert "a part of the published 5,864 of 100" in output
    assert output.count("every image can be opened") == 2
    assert output.endswith("cub200: nothing is damaged\n")
    assert _checked(tmp_path, capsys, "digits")[0] == 0
    images = [tmp_path / "own" / f"{number}" / "a.png" for number in range(4)]
    for number, image in enumerate(images):
        image.parent.mkdir(parents=True)
        image.write_bytes(data_copies.png(number))
    assert _checked(tmp_path / "own", capsys, "folder")[0] == 0
    images[2].write_bytes(b"no image")
    assert _checked(tmp_path / "own", capsys, "folder")[0] == 1


IMAGE = "images/004.Bird_4/Bird_4_1.jpg"


def _broken(folder: Path) -> None:
    (folder.parent / "cub200").mkdir()
    (folder.parent / "cub200" / "CUB_200_2011.tgz").write_bytes(b"cut")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / IMAGE).write_bytes(b"no image"), "Bird_4_1.jpg cannot be read as an image"),
        (lambda folder: (folder / IMAGE).unlink(), "1 of 12 in"),
        (lambda folder: data_copies.cub_copy(folder.parent, classes=200), "published are 5,864 of 100"),
        (_broken, "CUB_200_2011.tgz: DAMAGED: another MD5"),
    ],
)
def test_check_names_the_damage_with_status_1(
    tmp_path: Path, capsys: Capture, damage: Callable[[Path], Any], message: str
) -> None:
    damage(data_copies.cub_copy(tmp_path))
    status, output = _checked(tmp_path, capsys)
    assert status == 1
    assert message in output
    assert output.endswith("cub200: damaged\n")
