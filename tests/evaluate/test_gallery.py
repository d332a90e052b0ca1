"""Queries against a gallery of their own, and labels of any kind."""

import numpy as np
import pandas as pd
import pytest
import torch

from snrlib.distances import DISTANCES, Distance, get_distance
from snrlib.evaluate import compare, evaluate, retrieval, verification

QUERIES, REFERENCES = 30, 40


def _member(name: str, anchor: str = "query") -> Distance:
    components = torch.eye(6, dtype=torch.float64) + 0.1 if "mahalanobis" in name else None
    return get_distance(name, components=components, anchor=anchor)


@pytest.fixture(scope="module")
def sets() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries of classes 0 to 5, references of 2 to 7, their labels: some classes stand on one side alone."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (QUERIES, REFERENCES))
    given = torch.randint(0, 6, (QUERIES,), generator=generator)
    gallery = torch.randint(2, 8, (REFERENCES,), generator=generator)
    return x + given[:, None], given, y + gallery[:, None], gallery


def _loops(d: torch.Tensor, given: torch.Tensor, gallery: torch.Tensor, ks: tuple[int, ...]) -> pd.DataFrame:
    rows = []
    for row, label in zip(d.tolist(), given.tolist(), strict=True):
        hits = [int(gallery[j]) == label for j in sorted(range(len(row)), key=row.__getitem__)]
        r = sum(hits)
        scores = [float(any(hits[:k])) for k in ks]
        scores += [sum(hits[:r]) / r, sum(sum(hits[:i]) / i for i in range(1, r + 1) if hits[i - 1]) / r] if r else []
        rows.append(scores if r else [float("nan")] * (len(ks) + 2))
    return pd.DataFrame(rows)


@pytest.mark.parametrize("anchor", ["query", "ref"])
@pytest.mark.parametrize("name", DISTANCES)
def test_a_gallery_is_scored_as_loops_do(name: str, anchor: str, sets: tuple[torch.Tensor, ...]) -> None:
    x, given, y, gallery = sets
    d = _member(name, anchor)
    found = retrieval(x, given, d, ks=(1, 3), reference=y, reference_labels=gallery)
    expected = _loops(d(x, y), given, gallery, (1, 3))
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy())
    assert found.isna().any(axis=1).sum() == (given < 2).sum(), "classes that no reference has"
    pairs = verification(x, given, d, reference=y, reference_labels=gallery)
    matrix, same = d(x, y), given[:, None] == gallery
    np.testing.assert_allclose(np.sort(pairs.positive), matrix[same].sort().values)
    np.testing.assert_allclose(np.sort(pairs.negative), matrix[~same].sort().values)
    table = compare(x, given, d, ks=(1,), reference=y, reference_labels=gallery)
    own = table.loc[f"training distance, anchor {anchor}" if d.anchored else "training distance"]
    assert own.precision_at_1 == pytest.approx(found.precision_at_1.mean())
    assert pytest.approx(pairs.EER) == own.EER


def test_a_gallery_of_itself_finds_itself_first(sets: tuple[torch.Tensor, ...]) -> None:
    x, given, *_ = sets
    assert (retrieval(x, given, reference=x, reference_labels=given).precision_at_1 == 1).all()
    assert retrieval(x, given).precision_at_1.mean() < 1


def test_classes_count_alike_where_asked(sets: tuple[torch.Tensor, ...]) -> None:
    x, given, y, gallery = sets
    queries = retrieval(x, given, reference=y, reference_labels=gallery)
    found = evaluate(x, given, cluster=False, average="class", reference=y, reference_labels=gallery)
    means = [queries.precision_at_1[(given == label).numpy()].mean() for label in range(2, 6)]
    assert found["precision_at_1"] == pytest.approx(np.mean(means))


@pytest.mark.parametrize("kind", [np.array, list, lambda labels: pd.Series(labels, dtype=str)])
def test_labels_of_any_kind_give_one_score(kind: type, sets: tuple[torch.Tensor, ...]) -> None:
    x, given, y, gallery = sets
    d = get_distance("snr")
    expected = compare(x, given, d, reference=y, reference_labels=gallery)
    for name in (int, "class {}".format):
        own, others = (kind([name(int(label)) for label in labels]) for labels in (given, gallery))
        pd.testing.assert_frame_equal(compare(x, own, d, reference=y, reference_labels=others), expected)
        assert evaluate(x, own) == evaluate(x, given)


def test_few_candidates_cut_the_usual_ks() -> None:
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    with pytest.warns(UserWarning, match="2 candidates: there are no scores at k = 4, 8"):
        found = evaluate(x, [0, 0, 1])
    assert found["recall_at_2"] == 1
    assert "recall_at_4" not in found
    with pytest.raises(ValueError, match="k must be an integer from 1 to 2"):
        evaluate(x, [0, 0, 1], ks=(1, 4))
    with pytest.raises(ValueError, match="at least two are needed"):
        evaluate(x[:1], [0])


@pytest.mark.parametrize("labels", [[0] * 12, range(12)])
def test_clusters_of_no_meaning_have_no_score(labels: list[int]) -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    found = evaluate(x, list(labels))
    assert np.isnan([found["NMI"], found["AMI"]]).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"reference": torch.ones(3, 6)}, ValueError, "reference and reference_labels go together"),
        ({"reference_labels": [0]}, ValueError, "reference and reference_labels go together"),
        ({"labels": "abc"}, TypeError, "labels must be a tensor, an array or a list of labels, got str"),
        ({"labels": None}, TypeError, "labels must be a tensor, an array or a list of labels, got NoneType"),
        ({"labels": [0.5] * QUERIES}, ValueError, "labels must be 30 integers or strings, got float64"),
        ({"labels": ["a", None] * 15}, ValueError, "labels must be 30 integers or strings, got object"),
        ({"labels": [0, 1]}, ValueError, r"labels must be 30 integers or strings, got int64 of shape \(2,\)"),
        ({"reference": torch.ones(2, 6), "reference_labels": ["a", "b"]}, ValueError, "must both be integers or both"),
        ({"ks": (1.5,)}, ValueError, r"ks must be one or more positive integers, got \(1.5,\)"),
        ({"ks": 3}, ValueError, "ks must be one or more positive integers, got 3"),
        ({"ks": ()}, ValueError, "ks must be one or more positive integers"),
        ({"distance": "snr"}, TypeError, "distance must be a Distance"),
        ({"average": "mean"}, ValueError, "average must be one of query, class"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    options: dict[str, object], error: type[Exception], message: str, sets: tuple[torch.Tensor, ...]
) -> None:
    x, given, *_ = sets
    with pytest.raises(error, match=message):
        evaluate(**{"embeddings": x, "labels": given.tolist(), **options})  # type: ignore[arg-type]
    if "average" not in options:
        with pytest.raises(error, match=message):
            compare(**{"embeddings": x, "labels": given.tolist(), "distance": get_distance("snr"), **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("anchor", ["query", "ref"])
def test_some_rows_are_queries_against_all_others(anchor: str, sets: tuple[torch.Tensor, ...]) -> None:
    x, given, y, gallery = sets
    d = get_distance("snr", anchor=anchor)
    x[3] = x[4]  # a duplicate of a query is found, and no query finds itself
    rows, done = torch.tensor([4, 0, 17, 3]), list[int]()
    pd.testing.assert_frame_equal(
        retrieval(x, given, d, rows=rows, progress=done.append),
        retrieval(x, given, d).iloc[rows.tolist()].reset_index(drop=True),
    )
    assert sum(done) == 4
    both: dict[str, torch.Tensor] = {"reference": y, "reference_labels": gallery}
    pd.testing.assert_frame_equal(
        retrieval(x, given, d, rows=rows, **both),  # type: ignore[arg-type]
        retrieval(x, given, d, **both).iloc[rows.tolist()].reset_index(drop=True),  # type: ignore[arg-type]
    )
    for wrong in ([], [-1], [QUERIES]):
        with pytest.raises(ValueError, match="rows must be one or more row numbers from 0 to 29"):
            retrieval(x, given, rows=torch.tensor(wrong, dtype=torch.int64))
