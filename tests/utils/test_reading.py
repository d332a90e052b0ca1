"""Files that somebody may have damaged: each is read whole or refused by name."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from snrlib.utils.reading import read_json, read_npz


def _npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


WHOLE = _npz(a=np.arange(300), b=np.arange(2))
JSON = [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe{", b"[" * 10_000, b'{"a": 1} x', b"<html>"]
NPZ = [b"", b"text", WHOLE[:200], WHOLE[:-50], WHOLE[:90] + b"\0" * 40 + WHOLE[130:], pickle.dumps({"a": 1})]
NPZ += [_npz(a=np.array([{}], dtype=object), b=1), _npz(b=1), io.BytesIO(b"\x93NUMPY" + WHOLE[:30]).getvalue()]


class Tripwire:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("content", JSON, ids=range(len(JSON)))
def test_damaged_json_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json is damaged: .+; run it again$"):
        read_json(path, "run it again")


@pytest.mark.parametrize("content", NPZ, ids=range(len(NPZ)))
def test_damaged_arrays_are_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz is damaged: .+; run it again$"):
        read_npz(path, "run it again", "a", "b")


def test_what_is_whole_is_read_and_nothing_runs(tmp_path: Path) -> None:
    path, wire = tmp_path / "x", tmp_path / "wire"
    path.write_text(json.dumps({"ä": [1]}), encoding="utf-8")
    assert read_json(path, "") == {"ä": [1]}
    path.write_bytes(WHOLE)
    assert list(read_npz(path, "", "a")["a"]) == list(range(300))
    for content in (_npz(a=np.array([Tripwire(wire)], dtype=object)), pickle.dumps(Tripwire(wire))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            read_npz(path, "")
    assert not wire.exists()
    path.unlink()
    for read in (read_json, read_npz):
        with pytest.raises(FileNotFoundError):
            read(path, "")
    path.mkdir()
    for read in (read_json, read_npz):
        with pytest.raises(ValueError, match=r"is damaged: .*Is a directory"):
            read(path, "")
