"""What the next token may be, against transformers' processors and by hand."""

import pytest
import torch
from transformers.generation.logits_process import NoRepeatNGramLogitsProcessor

from open_florence.inference.constraints import Constraints, ban_repeated_ngrams, force, suppress


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ngram_ban_is_transformers(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    for length in range(1, 14):
        history = torch.randint(0, 4, (6, length), generator=generator)
        scores = torch.randn(6, 9, generator=generator)
        expected = NoRepeatNGramLogitsProcessor(size)(history, scores)
        assert torch.equal(ban_repeated_ngrams(scores, history, size), expected)


def test_ngram_ban_counts_the_start_token() -> None:
    history = torch.tensor([[2, 5, 6, 7, 2, 5]])  # 2 is the start token: "2 5 6" stood there already
    banned = ban_repeated_ngrams(torch.zeros(1, 8), history, 3)
    assert banned.isinf().nonzero().tolist() == [[0, 6]]


def test_forced_and_suppressed() -> None:
    scores = torch.randn(2, 5)
    assert force(scores, 3).log_softmax(1).exp().tolist() == [[0, 0, 0, 1, 0]] * 2
    assert suppress(scores, (0, 4)).isinf().tolist() == [[True, False, False, False, True]] * 2
    assert not scores.isinf().any()  # what was given is left as it was


def test_a_forced_token_overrides_every_ban() -> None:
    constraints = Constraints(limit=3, no_repeat_ngram_size=1, first=0, last=2, suppressed=(0, 2))
    scores = torch.zeros(1, 6)
    assert constraints(scores, torch.tensor([[2]])).isfinite().nonzero().tolist() == [[0, 0]]
    assert constraints(scores, torch.tensor([[2, 0, 4]])).isfinite().nonzero().tolist() == [[0, 2]]
    allowed = constraints(scores, torch.tensor([[2, 0]])).isfinite().nonzero()[:, 1].tolist()
    assert allowed == [1, 3, 4, 5]


def test_of_a_single_token_the_last_is_forced() -> None:
    constraints = Constraints(limit=1, first=0, last=2)
    assert constraints(torch.zeros(1, 6), torch.tensor([[2]])).isfinite().nonzero().tolist() == [[0, 2]]
