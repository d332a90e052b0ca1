"""Profiles of study.yaml: only cells that can be, each with a name of its own and what was tuned for it."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from study_cases import BLOCK, finish, profile

from snrlib.cli.main import main
from snrlib.cli.notebooks import values_of
from snrlib.study.profiles import cells, check, profiles

PROFILES = tuple(profiles())


def test_every_profile_of_the_study_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"smoke", "quick", "full", "paper", "omniglot", "cub200", "cub_features_losses"}
    assert set(PROFILES) == kinds | {
        "acts_birds",
        "acts_glyphs",
        *(f"acts_{data}_{setting}" for data in ("birds", "glyphs") for setting in ("near", "far")),
        "boards",
        "report",
        "cars",
        "birds",
        "cars_last_layer",
    }
    for name in PROFILES:
        found = cells(name)
        with monkeypatch.context() as pretrained:
            pretrained.setattr(Path, "is_file", lambda path: True)  # the weights that `snr pretrain` makes
            check([task for task in found if task.values["seed"] == 0])
        blocks = pd.DataFrame([task.values for task in found]).groupby(["data", "backbone", "loss"])
        assert all({"euclidean", "cosine"} & set(part.distance) for _, part in blocks), "the baseline, or a rival's own"
        assert all(part.groupby("distance").seed.unique().map(len).nunique() == 1 for _, part in blocks)
    assert [cell.values["data"] for cell in cells("smoke")] == ["digits"] * 2
    assert {cell.values["weights"] for cell in cells("paper")} == {"imagenet"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("profiles: [", "study.yaml: while parsing"),
        ({"loss": None}, r"study.yaml, profiles.quick.0: 'loss' is a required property"),
        ("{}", "study.yaml, at its top: 'profiles' is a required property"),
        ({"datta": ["digits"]}, r"study.yaml, profiles.quick.0: .*'datta' was unexpected.*; a block has data, "),
        ({"seed": ["0"]}, "study.yaml, profiles.quick.0.seed.0: '0' is not of type 'integer'"),
        ({"loss": []}, r"study.yaml, profiles.quick.0.loss: \[\] should be non-empty"),
        ({"settings": {"loss": "lifted"}}, "study.yaml, profiles.quick.0.settings: 'loss'"),
        ({"settings": {"steps": [1, 2]}}, "study.yaml, profiles.quick.0.settings.steps: "),
        # what fits the schema, but not notebook 07
        ({"distance": ["euclid"]}, "study.yaml, profiles.quick.0: distance must be one of euclidean, .*; got 'euclid'"),
        ({"seed": [-1]}, "study.yaml, profiles.quick.0: seed must be from 0 to"),
        ({"settings": {"step": 10}}, "07_train has no parameter step; valid: data, .*steps"),
        ({"settings": {"steps": 10.5}}, "steps must be int or auto, got 10.5"),
        ({"tuned_on": "glyphs"}, "study.yaml, profiles.quick.0: tuned_on must be one of its data, digits, got 'g"),
        # what notebook 07 takes, but no experiment
        ({"settings": {"weights": "imagenet"}}, "conv4-euclidean-.* cannot be: conv4 has no ImageNet weights; .*res"),
        ({"settings": {"weights": "w.pth"}}, r"cannot be: its weights, .*w\.pth, are not there"),
        ({"backbone": ["linear"]}, "cannot be: features go with backbone linear and images with another"),
        ({"loss": ["angular"]}, "snr-angular-seed=0 cannot be: the angular loss is defined over absolute"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_runs(
    root: Path, content: Any, message: str, capsys: pytest.CaptureFixture
) -> None:
    if isinstance(content, dict):
        profile(root, {axis: values for axis, values in {**BLOCK, **content}.items() if values is not None})
    else:
        (root / "study.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        check(cells("quick"))
    for command in (["study"], ["study", "--dry-run"], ["tune", "--profile", "quick"], ["measure", "quick"]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith("snr: ")
    assert not (root / "data").exists()


BLOCKS = "profiles: {quick: [{data: [digits], backbone: [conv4], distance: [snr], loss: [triplet], seed: [0]}]}"
EXPLODES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BLOCKS.encode("utf-16"), "is not UTF-8"),
        ("# ä".encode("latin-1") + b"\n" + BLOCKS.encode(), "is not UTF-8"),
        (BLOCKS.replace("seed: [0]", "seed: [0], seed: [1]").encode(), "the key 'seed' stands twice"),
        (b"profiles: {}\nprofiles: {}", "the key 'profiles' stands twice"),
        (BLOCKS.replace("quick", "2024").encode(), "a name must be a text, got 2024; put it in quotes"),
        (EXPLODES.encode(), "its aliases make it larger than 100,000 entries"),
        (b"profiles: &a {quick: [*a]}", "its aliases make it larger than 100,000 entries"),
        (b"profiles: " + b"[" * 5000, "maximum recursion depth"),
        (b"profiles: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"\0", "special characters are not allowed"),
    ],
    ids=range(10),
)
def test_a_hostile_study_file_is_refused(root: Path, content: bytes, message: str) -> None:
    (root / "study.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^study\.yaml.*{message}"):
        profiles()


def test_aliases_and_a_byte_order_mark_are_read(root: Path) -> None:
    (root / "study.yaml").write_bytes(
        BLOCKS.replace("quick: [", "also: &a [").replace("}]}", "}], quick: *a}").encode("utf-8-sig")
    )
    assert cells("quick")[0].values == cells("also")[0].values


def test_unknown_profiles_and_numbers_of_cores_are_refused(root: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["study", "--profile", "huge"]) == 2
    assert "unknown profile 'huge'; study.yaml has quick" in capsys.readouterr().err
    assert main(["study", "--cores", "0"]) == 2
    assert "--cores must be positive" in capsys.readouterr().err
    (root / "study.yaml").unlink()
    assert main(["study"]) == 2
    assert f"no study.yaml in {root}" in capsys.readouterr().err


def test_older_studies_train_in_float32() -> None:
    """Those before the precision could be chosen: the same command gives the same numbers."""
    for name in ("full", "omniglot", "cub200", "cub_features_losses"):
        assert {task.values.get("precision") for task in cells(name, tuned_values=False)} == {"float32"}


def test_a_cell_is_named_by_unusual_settings(root: Path) -> None:
    profile(root, BLOCK, {**BLOCK, "settings": {"frozen_trunk": False}}, {**BLOCK, "settings": {"steps": 5}})
    names = [cell.name for cell in cells("quick")]
    named = ("euclidean-triplet", "snr-triplet", "euclidean-triplet-steps=5", "snr-triplet-steps=5")
    assert names == [f"grid/digits-conv4-{name}-seed=0" for name in named]
    assert cells("quick")[0].output == root / "data" / "runs" / names[0] / "07_train.ipynb"
    for margin in (1, 1.0):
        profile(root, {**BLOCK, "settings": {"margin": margin}})
        assert cells("quick")[0].name == "grid/digits-conv4-euclidean-triplet-margin=1.0-seed=0"


def test_paths_of_weights_count_from_the_study(root: Path) -> None:
    for folder in ("a", "b"):
        (root / folder).mkdir()
        (root / folder / "my weights.pt").touch()
    profile(root, *({**BLOCK, "settings": {"weights": f"{folder}/my weights.pt"}} for folder in "ab"))
    found = cells("quick")
    assert len({cell.name for cell in found}) == 4
    assert all("weights=my_weights.pt." in cell.name for cell in found)
    assert found[0].values["weights"] == str(root / "a" / "my weights.pt")
    check(found)


def test_a_cells_command_says_all_its_values(root: Path) -> None:
    settings = {"normalize_embeddings": True, "margin": 0.3, "steps": 7, "root": "some where", "regularizer": 0}
    profile(root, {**BLOCK, "settings": settings})
    cell = cells("quick")[0]
    command = cell.job().command
    assert command[1:5] == ("-m", "snrlib", "run", "07_train")
    given = [text for flag, text in pairwise(command) if flag == "-p"]
    assert values_of("07", given) == cell.values
    known = settings | {key: values[0] for key, values in BLOCK.items()}
    assert cell.values == known | {"root": str(root / "some where")}, "as seen from the study"
    assert command[-3:] == ("-o", str(cell.output), "--renew")
    assert cell.job(force=True).command[-1] == "--force"
    finish(cell)
    assert cell.job().command[-1] == "--force", "a result that is there, of a cell to do, is out of date"


def test_tuned_values_flow_into_cells_not_names(root: Path) -> None:
    names = [cell.name for cell in cells("quick")]
    key = {"data": "digits", "backbone": "conv4", "loss": "triplet", "map": "", "pretrained": False}
    row = {**key, "distance": "snr", "embedding_size": 64, "margin": 0.7, "learning_rate": 0.02}
    folder = root / "data" / "reference"
    folder.mkdir(parents=True)
    (folder / "tuned_quick.json").write_text(json.dumps({"profile": "quick", "tuned": [row]}))
    euclid, snr = cells("quick")
    assert [cell.name for cell in (euclid, snr)] == names
    assert (snr.values["margin"], snr.values["learning_rate"]) == (0.7, 0.02)
    assert not {"margin", "learning_rate"} & euclid.values.keys()
    assert "margin" not in cells("quick", tuned_values=False)[1].values
    profile(root, {**BLOCK, "settings": {"margin": 0.1}})
    snr = cells("quick")[1]
    assert (snr.values["margin"], snr.values["learning_rate"]) == (0.1, 0.02)


def test_the_smallest_profile_is_written_for_people(repository: Path) -> None:
    content = yaml.safe_load((repository / "study.yaml").read_text())
    assert content["profiles"]["smoke"] == [{**BLOCK, "settings": {"steps": 10}}]
