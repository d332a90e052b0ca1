"""What runs, trainings, the grid and the page say of themselves, as other people's programs read it."""

import hashlib
import io
import json
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import requests
from report_cases import add_notebook, small_study
from rocrate.rocrate import ROCrate
from rocrate_validator.services import ValidationSettings, validate
from study_cases import BLOCK, finish, profile

from snrlib.cli.main import main
from snrlib.notebooks import run as runs
from snrlib.report import index as report
from snrlib.study import workflow
from snrlib.study.grid import Grid
from snrlib.utils.crate import CRATE, Value, write_crate

KINDS = {"run": "workflow-run-crate", "train": "process-run-crate"}
KINDS |= {"grid": "process-run-crate", "page": "process-run-crate"}
TRAIN = Path(__file__).resolve().parents[2] / "notebooks" / "07_train.ipynb"
PRIVATE = ("alice", "made-up-host", "example.org", "s3cret", "/tmp", "/home")
NOT_FOLLOWED = (  # recommendations, and why not: nobody is named, and the study has no public address
    "The Action SHOULD have an agent that is a Person or Organization",
    "The Root Data Entity SHOULD have a link to a Contextual Entity representing the `author` of the RO-Crate",
    "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
    "The SoftwareApplication id SHOULD be an absolute URI",
    "The Application SHOULD have a url",
    "The README.md SHOULD be about the crate",
    "The README.md SHOULD have text/markdown as its encodingFormat",
)
TINY = ("data=digits", "backbone=conv4", "embedding_size=8", "steps=2", "batch_size=24", "m=8", "image_size=16")
ROW = {"finished": "2026-11-25T01:00:00+00:00", "wall_time_s": 30.25, "git_commit": "c0ffee", "source": "0123"}
ROW |= {"versions": {"python": "3.11.1", "snrlib": "0.7.0", "torch": "2.13.0"}, "data": {"digits, test": "0123abcd"}}


@pytest.fixture(scope="module")
def crates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A folder of each kind, copied away from where it was made, by somebody whose name must not be in it."""
    home = tmp_path_factory.mktemp("alice")
    copies = tmp_path_factory.mktemp("copies")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"HOME": home, "USER": "alice", "LOGNAME": "alice", "EMAIL": "alice@example.org"}.items():
            patch.setenv(name, str(value))
        patch.setenv("TOKEN", "s3cret")
        patch.setattr(socket, "gethostname", lambda: "made-up-host")
        patch.setattr("platform.node", lambda: "made-up-host")
        made = {"train": home / "mine"}
        assert main(["train", "-o", str(made["train"]), *(part for one in TINY for part in ("-p", one))]) == 0
        study = small_study(home, patch)
        add_notebook(study, "01_small", more="\nroot: str = None  # the images [auto | path]")
        runs.run("01", {"root": str(home / "photos")}, home / "own" / "01.ipynb")
        made |= {"run": home / "own", "page": report.build().parent}
        shutil.copy(TRAIN, study / "notebooks")
        profile(study, BLOCK)
        for cell in Grid("quick").cells:
            finish(cell)
        made["grid"] = workflow.summarize(Grid("quick")).parent
        yield {kind: Path(shutil.copytree(folder, copies / kind)) for kind, folder in made.items()}


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address answers: that of the terms of RO-Crate 1.1, from a file that has those that are used here."""
    context = Path(__file__).with_name("ro_crate_1.1_context.json").read_bytes()

    def send(self: Any, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        if request.url != "https://w3id.org/ro/crate/1.1/context":
            raise requests.ConnectionError(request.url)
        answer = requests.Response()
        answer.status_code, answer.request, answer.raw = 200, request, io.BytesIO(context)
        answer.headers["Content-Type"] = "application/ld+json"
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what the validator is made of
@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("kind", KINDS)
def test_a_validator_finds_nothing_wrong(crates: dict[str, Path], kind: str) -> None:
    folder, profile = str(crates[kind]), KINDS[kind]
    wanted = ValidationSettings(folder, profile_identifier=profile, requirement_severity="RECOMMENDED", no_cache=True)
    result = validate(wanted)
    assert {issue.message for issue in result.get_issues()} <= set(NOT_FOLLOWED)
    assert len(result.executed_checks) > 50
    assert not [check.identifier for check in result.skipped_checks if check.severity.name == "REQUIRED"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copied_folder_opens_with_true_sizes(crates: dict[str, Path], kind: str) -> None:
    crate = ROCrate(crates[kind])
    files = {unquote(entity.id): entity for entity in crate.data_entities}
    assert files
    for name, entity in files.items():
        content = (crates[kind] / name).read_bytes()
        assert int(entity["contentSize"]) == len(content)
        assert entity["sha256"] == hashlib.sha256(content).hexdigest()
    there = {str(path.relative_to(crates[kind])) for path in crates[kind].rglob("*") if path.is_file()}
    described = there - {CRATE} - {name for name in there if kind == "grid" and not name.endswith("result.json")}
    described = {name for name in described if not name.startswith(("checkpoints/", "."))}
    assert described <= files.keys() <= there


@pytest.mark.parametrize("kind", KINDS)
def test_a_crate_names_nothing_private(crates: dict[str, Path], kind: str) -> None:
    text = (crates[kind] / CRATE).read_text()
    assert not [word for word in PRIVATE if word in text]
    entities = {entity["@id"]: entity for entity in json.loads(text)["@graph"]}
    assert not [name for name in entities if name.startswith(("/", "file:"))]
    if kind == "run":
        assert entities["#value-root"]["value"] == "photos"
        assert entities["#run"]["description"] == "`snr run 01_small -p root=photos`"


def _written(folder: Path, **changes: Any) -> str:
    (folder / "a b.ipynb").write_text("{}")
    values = [Value("seed", 7, "int", "of the draws"), Value("margin", None, "float")]
    files = {"a b.ipynb": "the notebook, executed"}
    return write_crate(folder, "Run of a b", files, ROW | changes, command="snr run a", values=values).read_text()


def test_the_same_run_has_the_same_bits(tmp_path: Path) -> None:
    first = _written(tmp_path)
    assert _written(tmp_path) == first
    later = _written(tmp_path, finished="2027-01-01T00:00:00+00:00", wall_time_s=1.0)
    pairs = zip(first.splitlines(), later.splitlines(), strict=True)
    differ = {a.split(":")[0].strip(' "') for a, b in pairs if a != b}
    assert differ == {"datePublished", "startTime", "endTime"}
    entities = {entity["@id"]: entity for entity in json.loads(first)["@graph"]}
    ends = [datetime.fromisoformat(entities["#run"][key]) for key in ("startTime", "endTime")]
    assert (ends[1] - ends[0]).total_seconds() == pytest.approx(30.25, abs=1)


@pytest.mark.parametrize("content", ["{}", '{"@graph": [{"@id": "./"}]}', "[", '{"@graph": 7}'])
def test_a_foreign_crate_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, capsys: pytest.CaptureFixture
) -> None:
    small_study(tmp_path, monkeypatch)
    place = runs.default_output("01").with_name(CRATE)
    place.parent.mkdir(parents=True)
    place.write_text(content)
    for command in (["run", "01"], ["train", "-o", str(place.parent)]):
        if command[0] == "train":
            shutil.copy(TRAIN, tmp_path / "notebooks")
        assert main(command) == 2
        assert f"{place} is of no run and would be replaced; move it away" in capsys.readouterr().err
        assert place.read_text() == content
