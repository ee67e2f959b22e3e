"""Search in NumPy against search in PyTorch, token for token."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from open_florence.edge.search import search
from open_florence.errors import OpenFlorenceError
from open_florence.generation import Generation, GenerationConfig
from open_florence.inference.generate import generate
from open_florence.model.florence import Florence, Memory


class Rereader:
    """A decoder that keeps the tokens and reads all of them again at every step; it counts the rows it reads."""

    def __init__(self, model: Florence, memory: Memory) -> None:
        self.model, self.memory = model, memory
        self.said = torch.zeros(len(memory.hidden), 0, dtype=torch.long)
        self.rows: list[int] = []

    def __call__(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        self.said = torch.cat([self.said, torch.from_numpy(tokens)], 1)
        self.rows.append(len(tokens))
        with torch.inference_mode():
            return self.model.decode(self.said, self.memory)[:, -1].numpy()

    def select(self, rows: NDArray[np.int64]) -> None:
        self.memory = Memory(self.memory.hidden[rows], self.memory.mask[rows])
        self.reorder(rows)

    def reorder(self, rows: NDArray[np.int64]) -> None:
        self.said = self.said[rows]


def check(toy: Any, **settings: Any) -> tuple[Generation, Rereader]:
    config = GenerationConfig(**settings)
    decoder = Rereader(toy.model, toy.memory)
    ours = search(decoder, len(toy.memory.hidden), toy.positions, config)
    theirs = generate(toy.model, toy.memory, config)
    assert ours.ids == theirs.ids
    assert ours.stopped == theirs.stopped
    assert ours.beams == theirs.beams
    assert ours.sequence_scores == pytest.approx(theirs.sequence_scores, rel=1e-5, abs=1e-4)
    for name in ("logprobs", "bins"):
        for one, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert one == pytest.approx(other, abs=1e-4, nan_ok=True)
    return ours, decoder


@pytest.mark.parametrize("ngram", [0, 1, 3])
@pytest.mark.parametrize("limit", [1, 2, 12, 30, 1000])
def test_greedy(toy: Any, ngram: int, limit: int) -> None:
    check(toy, no_repeat_ngram_size=ngram, max_new_tokens=limit)


@pytest.mark.parametrize("ngram", [0, 3])
@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("penalty", [1.0, 0.0, -1.0])
def test_beams(toy: Any, ngram: int, early: bool | str, penalty: float) -> None:
    for limit, returned in ((1, 1), (2, 1), (25, 1), (25, 3)):  # of two forced tokens there is one sequence
        check(
            toy,
            num_beams=3,
            no_repeat_ngram_size=ngram,
            early_stopping=early,
            length_penalty=penalty,
            max_new_tokens=limit,
            num_return_sequences=returned,
        )


@pytest.mark.parametrize("beams", [1, 5])
def test_unforced_suppressed_and_cut_vocabulary(toy: Any, beams: int) -> None:
    for limit in (1, 2, 15):
        ours, _ = check(
            toy,
            num_beams=beams,
            max_new_tokens=limit,
            forced_first=None,
            forced_last=None,
            suppressed=(17, 40, 54),
            vocabulary=90,
        )
        said = {id_ for ids in ours.ids for id_ in ids}
        assert not said & {17, 40, 54}
        assert max(said) < 90


@pytest.mark.parametrize("beams", [1, 3])
def test_bins_around_locations(toy: Any, beams: int) -> None:
    ours, _ = check(toy, num_beams=beams, max_new_tokens=30, location_window=7, locations=(20, 40))
    read = np.array([mean for row in ours.bins for mean in row])
    assert 0 < np.isnan(read).sum() < len(read)
    assert np.nanmin(read) >= 0
    assert np.nanmax(read) <= 39


def test_the_weights_put_the_search_to_the_test(toy: Any) -> None:
    """Answers differ between questions, end at different lengths, and the ban changes them."""
    greedy, _ = check(toy, max_new_tokens=30)
    beams, _ = check(toy, num_beams=3, max_new_tokens=30, num_return_sequences=3)
    banned, _ = check(toy, num_beams=3, max_new_tokens=30, num_return_sequences=3, no_repeat_ngram_size=3)
    assert len({tuple(ids) for ids in greedy.ids}) == 4
    assert len({len(ids) for ids in greedy.ids + beams.ids}) >= 5
    assert set(greedy.stopped) == {"eos", "length"}
    assert any(row % 3 != 0 for path in beams.beams for row in path)
    assert banned.ids != beams.ids


@pytest.mark.parametrize("beams", [1, 3])
def test_answered_questions_are_decoded_no_further(toy: Any, beams: int) -> None:
    _, decoder = check(toy, num_beams=beams, max_new_tokens=30)
    rows = decoder.rows[1:]  # of the first step, a question has one
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0] == 4 * beams


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"do_sample": True}, "sampling"),
        ({"constrained": True}, "PyTorch"),
        ({"location_window": 3}, "needs locations"),
    ],
)
def test_what_cannot_be(toy: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(OpenFlorenceError, match=says):
        search(Rereader(toy.model, toy.memory), 4, toy.positions, GenerationConfig(**settings))
