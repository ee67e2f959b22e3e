import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene
from numpy.typing import NDArray

from open_florence.data_engine.fusion.dawid_skene import dawid_skene, independence

Labels = NDArray[np.int64]


def votes(
    count: int, accuracies: list[float], classes: int = 4, silent: float = 0.2, copies: float = 0.0, seed: int = 0
) -> tuple[Labels, Labels]:
    """True classes (N,) and what sources say (N, S); with `copies` the second source repeats the first's mistakes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, count, p=np.array([8, 4, 2, 1][:classes]) / sum([8, 4, 2, 1][:classes]))
    said = np.stack([truth] * len(accuracies), axis=1)
    for s, accuracy in enumerate(accuracies):
        wrong = rng.random(count) > accuracy
        said[wrong, s] = (truth[wrong] + rng.integers(1, classes, wrong.sum())) % classes
    if copies:
        repeat = rng.random(count) < copies
        said[repeat, 1] = said[repeat, 0]
    return truth, np.where(rng.random(said.shape) < silent, -1, said)


def right(posterior: NDArray[np.float64], truth: Labels) -> float:
    return float((posterior.argmax(axis=1) == truth).mean())


@pytest.mark.filterwarnings("ignore")  # crowd-kit uses what pandas is about to drop
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_does_as_well_as_a_known_implementation(seed: int) -> None:
    truth, said = votes(1500, [0.9, 0.75, 0.6, 0.6], seed=seed)
    seen = (said >= 0).any(axis=1)
    truth, said = truth[seen], said[seen]
    ours = right(dawid_skene(said, 4).posterior(said), truth)
    rows, columns = np.nonzero(said >= 0)
    table = pd.DataFrame({"task": rows, "worker": columns, "label": said[rows, columns]})
    theirs = float((DawidSkene(n_iter=50).fit_predict(table).sort_index().to_numpy() == truth).mean())
    ballots = np.stack([(said == c).sum(axis=1) for c in range(4)], axis=1)
    majority = float((ballots.argmax(axis=1) == truth).mean())
    assert ours > majority + 0.005
    assert ours > theirs - 0.01


def test_the_matrices_are_those_of_the_sources() -> None:
    _, said = votes(4000, [0.95, 0.8, 0.6, 0.9], silent=0.0)
    diagonal = [float(np.diag(m) @ [8 / 15, 4 / 15, 2 / 15, 1 / 15]) for m in dawid_skene(said, 4).calls]
    assert diagonal == pytest.approx([0.95, 0.8, 0.6, 0.9], abs=0.06)


def test_what_a_person_has_told_stands_and_teaches() -> None:
    truth, said = votes(600, [0.55, 0.55, 0.55], silent=0.0)
    known = np.where(np.arange(600) < 300, truth, -1)
    alone = right(dawid_skene(said, 4).posterior(said)[300:], truth[300:])
    told = right(dawid_skene(said, 4, known=known).posterior(said)[300:], truth[300:])
    assert told >= alone


def test_a_rare_class_is_not_taken_for_its_frequent_neighbour() -> None:
    """Two sources call half of the rare class by the frequent one's name; the third never does."""
    rng = np.random.default_rng(1)
    truth = np.where(rng.random(3000) < 0.02, 1, 0)
    said = np.stack([truth] * 3, axis=1)
    for s in (0, 1):
        said[(truth == 1) & (rng.random(3000) < 0.5), s] = 0
    rare = truth == 1
    by_class = dawid_skene(said, 2).posterior(said).argmax(axis=1)
    pooled = dawid_skene(said, 2, per_class=False).posterior(said).argmax(axis=1)
    assert (by_class[rare] == 1).mean() > (pooled[rare] == 1).mean() + 0.1
    assert (by_class[~rare] == 0).mean() > 0.99


def test_sources_that_repeat_each_other_are_half_witnesses() -> None:
    _, said = votes(3000, [0.85, 0.85, 0.85, 0.85], silent=0.1, copies=0.7)
    own = independence(said)
    assert own[:2].max() < 0.75
    assert own[2:].min() > 0.85


def test_independent_sources_count_in_full_and_three_cannot_be_judged() -> None:
    _, said = votes(3000, [0.85, 0.8, 0.85, 0.9], silent=0.1)
    assert independence(said).min() > 0.85
    assert independence(said[:, :3]).tolist() == [1, 1, 1]


def test_posteriors_are_probabilities_even_of_silence() -> None:
    _, said = votes(50, [0.9, 0.5], silent=0.9)
    posterior = dawid_skene(said, 4).posterior(said)
    assert np.allclose(posterior.sum(axis=1), 1)
