"""Tables of experiments: your own runs read back as they were."""

import json
from pathlib import Path

import pandas as pd
import pytest

from snrlib import results
from snrlib.experiment import default_settings, experiment
from snrlib.results import confusions_of, gather_runs, run_now, table_of

SMALL = {"steps": 2, "image_size": 16, "embedding_size": 8}


@pytest.mark.parametrize("anchor", ["query", "ref"])
def test_own_runs_are_gathered_as_they_were(anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = experiment(default_settings("digits", "conv4", anchor=anchor, **SMALL))
    done.save(tmp_path / "one")
    row = {"parameters": {"data": "digits"}, "metrics": done.metrics}
    (tmp_path / "one" / "result.json").write_text(json.dumps(row))
    monkeypatch.setattr(results, "is_current", lambda _: True)
    found = gather_runs("digits", tmp_path)
    pd.testing.assert_frame_equal(found.runs, table_of(done), check_like=True)
    key = ["class", "taken_for"]
    counted, expected = (
        table.astype(dict.fromkeys(key, str)).sort_values(key, ignore_index=True)
        for table in (found.confused, confusions_of(done))
    )
    pd.testing.assert_frame_equal(counted, expected)
    with pytest.raises(FileNotFoundError, match="no current run on glyphs; `snr run 05 -p data=glyphs` makes one"):
        gather_runs("glyphs", tmp_path)


def test_new_experiments_cover_every_combination() -> None:
    found = run_now("digits", ["conv4"], ["triplet", "softmax"], ["euclidean", "snr"], (0, 1), **SMALL)
    kinds = found.runs[["loss", "distance", "seed"]].drop_duplicates()
    assert len(kinds) == 8
    assert set(found.confused.loss) == {"triplet", "softmax"}
