"""How probable given answers are: the decoder is told the answer and says how likely each of its tokens was.

Letters: N answers, T tokens of the longest, V vocabulary, S memory length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from open_florence.model.florence import Florence, Memory


def score_answers(
    model: Florence, memory: Memory, answers: Sequence[Sequence[int]], vocabulary: int, max_rows: int = 64
) -> Tensor:
    """Log-probabilities (N,) float32 of answers to one question.

    `memory` holds one row (1, S, d), which all answers share; `answers` are ids "<s> ... </s>". The first token of an
    answer is given, as it is forced in generation, so its probability is 1; that of the end token counts. Ids from
    `vocabulary` on are left out of the softmax. `max_rows` answers are read at a time.
    """
    totals = []
    with torch.inference_mode():
        for start in range(0, len(answers), max_rows):
            totals.append(_score(model, memory, answers[start : start + max_rows], vocabulary))
    return torch.cat(totals)


def _score(model: Florence, memory: Memory, answers: Sequence[Sequence[int]], vocabulary: int) -> Tensor:
    text, device = model.config.text, memory.hidden.device
    longest = max(map(len, answers))
    said = torch.tensor([[*ids, *[text.pad] * (longest - len(ids))] for ids in answers], device=device)  # (N, T)
    counted = torch.tensor([[0, *[1] * (len(ids) - 1), *[0] * (longest - len(ids))] for ids in answers], device=device)
    heard = said.roll(1, dims=1)  # what the decoder reads before each token
    heard[:, 0] = text.decoder_start
    logits = model.decode(heard, memory)[:, :, :vocabulary].float()  # (N, T, V)
    logprobs = logits.gather(2, said[:, :, None])[:, :, 0] - logits.logsumexp(2)  # (N, T)
    return (logprobs * counted).sum(1)
