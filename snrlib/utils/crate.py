"""Where the files of a folder come from, as others read it: an RO-Crate, ``ro-crate-metadata.json`` beside them.

A crate (https://w3id.org/ro/crate/1.1) is JSON-LD: one entity for the folder, one for each file with its size and
SHA-256, one for what was done, and one for each program and value that took part. A notebook that was run is a Workflow
Run Crate, anything else a Process Run Crate (https://w3id.org/ro/wfrun). It names no user, machine or place of one, and
all its own names are relative, so that a copied folder is the same crate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from snrlib.utils.files import without_private, write_text

__all__ = ["CRATE", "Value", "check_no_other_crate", "write_crate"]

CRATE = "ro-crate-metadata.json"
"""The name that the specification gives to the file."""

_PROCESS = "https://w3id.org/ro/wfrun/process/0.5"
_WORKFLOW = "https://w3id.org/ro/wfrun/workflow/0.5"
_WORKFLOW_FILE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
_PROFILES = {
    _PROCESS: ("Process Run Crate", "0.5"),
    _WORKFLOW: ("Workflow Run Crate", "0.5"),
    _WORKFLOW_FILE: ("Workflow RO-Crate", "1.0"),
}
_FORMATS = {  # not those of the `mimetypes` module, which differ between machines
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".npz": "application/zip",
    ".png": "image/png",
    ".pt": "application/zip",
    ".txt": "text/plain",
}
_TYPES = {"bool": "Boolean", "float": "Float", "int": "Integer"}  # of schema.org; all else is Text
_TERMS = (
    "What a run writes belongs to whoever ran it. The code is under the MIT licence "
    "(https://spdx.org/licenses/MIT.html), images of a data set, and what shows them, under the terms of their source."
)
_SNRLIB = {"@id": "#snrlib"}


@dataclass(frozen=True)
class Value:
    """A value that decided what came out.

    Attributes:
        name: of the parameter.
        value: that was chosen.
        type: as a notebook declares it: bool, float, int, str, list[str].
        help: what it is.
    """

    name: str
    value: Any
    type: str = "str"
    help: str = ""


def write_crate(
    folder: Path,
    name: str,
    files: Mapping[str, str],
    row: Mapping[str, Any],
    *,
    command: str,
    used: Mapping[str, str] | None = None,
    values: Iterable[Value] = (),
    coming: Mapping[str, str] | None = None,
) -> Path:
    """Write the crate of a folder, atomically; the same files, row and values make the same bytes.

    Args:
        folder: that holds the files.
        name: what was done, in a few words.
        files: that came out: relative names to descriptions. If the first is a notebook, it was executed.
        row: of `snrlib.utils.provenance.provenance`, with ``wall_time_s`` (seconds) and ``data`` (names to
            fingerprints) if they are known.
        command: that does it again.
        used: files of the folder that went in, as ``files``.
        values: of parameters.
        coming: names to content of files that will be written right after this one.

    Returns:
        The path of ``ro-crate-metadata.json``.

    Raises:
        FileNotFoundError: one of the files is not there.
        OSError: the folder cannot be written.
    """
    came_out, went_in = (
        [_file(folder, one, about, (coming or {}).get(one)) for one, about in each.items()]
        for each in (files, used or {})
    )
    parts, chosen = [*came_out, *went_in], list(values)
    workflow = came_out[0]["name"].endswith(".ipynb")
    ended = datetime.fromisoformat(row["finished"])
    profiles = [_PROCESS, _WORKFLOW, _WORKFLOW_FILE] if workflow else [_PROCESS]
    root: dict[str, Any] = {
        **{"@id": "./", "@type": "Dataset", "name": name},
        "description": f"Files that `{command}` wrote, with where they are from.",
        "datePublished": row["finished"],
        "license": {"@id": "#terms"},
        "conformsTo": [{"@id": profile} for profile in profiles],
        "hasPart": _ids(parts),
        "mentions": [{"@id": "#run"}],
    }
    run: dict[str, Any] = {
        **{"@id": "#run", "@type": "CreateAction", "name": name, "description": f"`{command}`"},
        "instrument": [_SNRLIB],
        "object": _ids(went_in),
        "result": _ids(came_out),
        "actionStatus": "http://schema.org/CompletedActionStatus",
        "endTime": ended.isoformat(),
    }
    if "wall_time_s" in row:
        run["startTime"] = (ended - timedelta(seconds=row["wall_time_s"])).isoformat(timespec="seconds")
    given = [_property(f"#value-{value.name}", value.name, value.value) for value in chosen]
    images = row.get("data", {}).items()
    data = [_property(f"#data-{n}", f"fingerprint of {name}", digest) for n, (name, digest) in enumerate(images)]
    run["object"] += _ids([*given, *data])
    entities = [_descriptor(workflow), root, *_profiles(profiles), *parts, run, *given, *data]
    if workflow:
        formal = [_formal(value) for value in chosen]
        for one, value in zip(formal, given, strict=True):
            value["exampleOfWork"] = {"@id": one["@id"]}
        notebook = parts[0]
        notebook |= _notebook(row, formal)
        root["mainEntity"] = {"@id": notebook["@id"]}
        run["instrument"] = [root["mainEntity"], _SNRLIB]
        entities += [*formal, _LANGUAGE]
    entities += [*_software(row), {"@id": "#terms", "@type": "CreativeWork", "name": "Terms", "description": _TERMS}]
    context = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "http://schema.org/sha256"}]
    graph = [{key: _single(value) for key, value in one.items() if value != []} for one in entities]
    text = json.dumps({"@context": context, "@graph": graph}, indent=1, ensure_ascii=False) + "\n"
    path = folder / CRATE
    write_text(path, without_private(text))
    return path


def check_no_other_crate(folder: Path) -> None:
    """Refuse a folder with a crate that this study did not write.

    Raises:
        FileExistsError: so.
    """
    path = folder / CRATE
    if not path.exists():
        return
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))["@graph"]
        ours = any(entity.get("@id") == _SNRLIB["@id"] for entity in graph)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        ours = False
    if not ours:
        raise FileExistsError(f"{path} is of no run and would be replaced; move it away, or choose another folder")


def _ids(entities: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"@id": entity["@id"]} for entity in entities]


def _file(folder: Path, name: str, about: str, coming: str | None) -> dict[str, Any]:
    size, sha256 = _digest(folder / name) if coming is None else _digest_of(coming.encode())
    kind = _FORMATS.get(PurePosixPath(name).suffix, "application/octet-stream")
    found = {"@id": quote(name), "@type": "File", "name": name, "description": about, "encodingFormat": kind}
    return found | {"contentSize": str(size), "sha256": sha256}


def _digest(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(content: bytes) -> tuple[int, str]:
    return len(content), hashlib.sha256(content).hexdigest()


def _descriptor(workflow: bool) -> dict[str, Any]:
    versions = [{"@id": "https://w3id.org/ro/crate/1.1"}, *([{"@id": _WORKFLOW_FILE}] if workflow else [])]
    return {"@id": CRATE, "@type": "CreativeWork", "conformsTo": versions, "about": {"@id": "./"}}


def _profiles(chosen: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {"@id": profile, "@type": "CreativeWork", "name": _PROFILES[profile][0], "version": _PROFILES[profile][1]}
        for profile in chosen
    ]


def _single(value: Any) -> Any:
    """Of a list of one its element, as the specification wants it."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _property(place: str, name: str, value: Any) -> dict[str, Any]:
    """A value with a name; of a path its last part."""
    if isinstance(value, str) and Path(value).expanduser().is_absolute():
        value = without_private(value, [value])
    if not isinstance(value, str | int | float):  # a list, or None, which JSON-LD takes for nothing
        value = "auto" if value is None else json.dumps(value, ensure_ascii=False)
    return {"@id": place, "@type": "PropertyValue", "name": name, "value": value}


def _formal(value: Value) -> dict[str, Any]:
    found = {"@id": f"#parameter-{value.name}", "@type": "FormalParameter", "name": value.name}
    found |= {"description": value.help} if value.help else {}
    return found | {
        "additionalType": _TYPES.get(value.type, "Text"),
        "conformsTo": {"@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"},
        "workExample": {"@id": f"#value-{value.name}"},
    }


def _notebook(row: Mapping[str, Any], formal: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What makes of a file the workflow that was run."""
    return {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
        "programmingLanguage": {"@id": _LANGUAGE["@id"]},
        "version": row["source"],
        "input": _ids(formal),
    }


_LANGUAGE = {
    "@id": "https://jupyter.org",
    "@type": "ComputerLanguage",
    "name": "Jupyter Notebook",
    "url": {"@id": "https://jupyter.org"},
}


def _software(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The library, at its commit, and the packages beneath it."""
    versions = dict(row["versions"])
    ours = {"@type": "SoftwareApplication", "name": "snrlib", "softwareVersion": versions.pop("snrlib")}
    packages = [
        {
            "@id": "https://www.python.org/" if name == "python" else f"https://pypi.org/project/{name}/{number}/",
            **{"@type": "SoftwareApplication", "name": name, "softwareVersion": number},
        }
        for name, number in versions.items()
    ]
    for package in packages:
        package["url"] = package["@id"]
    ours["softwareRequirements"] = [{"@id": package["@id"]} for package in packages]
    if row.get("git_commit"):
        ours["identifier"] = {"@id": "#commit"}
        packages.append(_property("#commit", "git commit", row["git_commit"]))
    return [_SNRLIB | ours, *packages]
