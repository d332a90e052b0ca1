"""Ways to search the same embeddings: against a loop over folds in numpy, and what may be called a difference."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import binom
from sklearn.preprocessing import Normalizer

from snrlib.distances import get_distance
from snrlib.evaluate import Comparison, compare
from snrlib.mahalanobis import Whitening, usual_ways

C, EACH, M = 8, 9, 5
Y = torch.arange(C).repeat(EACH)


def _vectors(seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    spread = torch.tensor([6.0, 4.0, 1.0, 1.0, 1.0])
    return (torch.randn(C * EACH, M, generator=g) * spread + 2 * torch.randn(C, M, generator=g)[Y]).double()


def _parts(seed: int = 0) -> list[set[int]]:
    order = torch.randperm(C, generator=torch.Generator().manual_seed(seed)).tolist()
    return [{c for place, c in enumerate(order) if place % 2 == number} for number in range(2)]


def _hits(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    d = cdist(x, x)
    np.fill_diagonal(d, np.inf)
    return y[d.argmin(axis=1)] == y


def test_maps_are_fitted_to_the_other_classes() -> None:
    x, y = _vectors(), Y.numpy()
    table = compare(x, Y, search={"whitening": Whitening(within_class=True)}, cluster=False)
    euclid, whitened = [], []
    for part in _parts():
        mine = np.isin(y, [*part])
        own, other, of_other = x.numpy()[mine], x.numpy()[~mine], y[~mine]
        residuals = np.concatenate(
            [other[of_other == c] - other[of_other == c].mean(axis=0) for c in np.unique(of_other)]
        )
        S = residuals.T @ residuals / (len(other) - C // 2)
        euclid.append(_hits(own, y[mine]))
        whitened.append(_hits(own @ np.linalg.inv(np.linalg.cholesky(S)).T, y[mine]))
    for name, hits in {"Euclid": euclid, "whitening": whitened}.items():
        assert (table.queries[name].precision_at_1 == np.concatenate(hits)).all()
        assert table.precision_at_1[name] == np.concatenate(hits).mean()
    assert (table.about["folds"], table.about["classes"], table.about["queries"]) == (2, C, C * EACH)


def test_a_training_set_takes_the_place_of_folds() -> None:
    x, other = _vectors(), _vectors(1)
    fitted = Whitening(within_class=True).fit(other.numpy(), Y.numpy())
    usual = compare(x, Y, search={"w": fitted}, cluster=False)
    found = compare(x, Y, search={"w": Whitening(within_class=True)}, cluster=False, train=other, train_labels=Y)
    pd.testing.assert_frame_equal(found, usual)
    assert found.about["fitted_to"] == len(other)


def test_a_sample_of_queries_scores_as_all_do() -> None:
    x = _vectors()
    every, some = compare(x, Y, cluster=False), compare(x, Y, cluster=False, queries=20)
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:20].sort().values.numpy()
    expected = every.queries["Euclid"].iloc[drawn].reset_index(drop=True)
    pd.testing.assert_frame_equal(some.queries["Euclid"], expected)
    assert some.query_classes.tolist() == Y[drawn].tolist()


def test_twins_by_algebra_are_not_tested() -> None:
    search = {name: get_distance(name) for name in ("centred_euclidean", "snr", "relative_euclidean", "cosine")}
    table = compare(_vectors(), Y, search=search | {"lengths": Normalizer()}, cluster=False)
    found = table.differences()
    twins = {
        "centred_euclidean": "",
        "snr": "centred_euclidean",
        "relative_euclidean": "Euclid",
        "cosine": "",
        "lengths": "",
    }
    assert found.ranks_as.to_dict() == twins
    tested = found.p.notna()
    assert tested.sum() == 3
    assert (found.p_holm[tested] >= found.p[tested]).all()
    assert table.EER["snr"] != table.EER["centred_euclidean"]
    kept = table.loc[["snr"]]
    assert isinstance(kept, Comparison)
    assert kept.about == table.about


@pytest.mark.parametrize(
    ("gain", "words"), [(3.0, "Use good: R@1 is 1.000"), (0.0, "All ways find the same as Euclid")]
)
def test_the_answer_names_what_to_use(gain: float, words: str) -> None:
    x, y = torch.randn(120, 3, generator=torch.Generator().manual_seed(0)), torch.arange(120) % 12

    class Good(Normalizer):
        def transform(self, X: np.ndarray, copy: bool | None = None) -> np.ndarray:
            return X if not gain else np.column_stack([X, 100 * gain * y.numpy()])

    table = compare(x, y, search={"good": Good()}, cluster=False)
    assert words in table.answer()


def test_few_classes_are_said_to_be_too_few() -> None:
    x, y = _vectors()[Y < 4], Y[Y < 4]
    table = compare(x, y, search={"w": Whitening(within_class=True)}, cluster=False)
    assert "Too few classes to tell: with 4 classes and 1 way no p can be below 0.12" in table.answer()


def test_random_vectors_show_no_difference() -> None:
    ways, called = usual_ways(), []
    for draw in range(6):
        x = torch.randn(120, 8, generator=torch.Generator().manual_seed(draw))
        table = compare(x, torch.arange(120) % 12, search=ways, cluster=False, seed=draw)
        called.append((table.differences().verdict != "no difference shown").any())
    assert sum(called) <= binom.ppf(0.999, len(called), 0.05)


def test_what_cannot_be_fitted_is_left_out_in_words() -> None:
    x = torch.cat([_vectors(), torch.ones(len(Y), 1)], dim=1)
    with pytest.warns(UserWarning, match="w is left out: it cannot be fitted to 36 rows: 1 of the 6 columns"):
        table = compare(x, Y, search={"w": Whitening()}, cluster=False)
    assert [*table.index] == [*table.queries] == ["Euclid"]
    assert [*table.about["left_out"]] == ["w"]


def test_folds_that_cannot_be_are_refused() -> None:
    w = {"w": Whitening(within_class=True)}
    with pytest.raises(ValueError, match="takes four classes; got 3"):
        compare(_vectors()[Y < 3], Y[Y < 3], search=w)
    with pytest.raises(ValueError, match="folds must be an integer from 1 to 4"):
        compare(_vectors(), Y, search=w, folds=5)
    with pytest.raises(ValueError, match="train and train_labels go together"):
        compare(_vectors(), Y, search=w, train=_vectors())
    with pytest.raises(TypeError, match=r"embeddings must be a torch\.Tensor"):
        compare(_vectors().numpy(), Y, search=w)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="baseline must be one of Euclid, got 'cosine'"):
        compare(_vectors(), Y, cluster=False).differences("cosine")
