"""What is asked of generation, and what comes back: settings and answers of every engine, with PyTorch or without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from open_florence.errors import OpenFlorenceError

Stopped = Literal["eos", "length"]


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """How the next tokens are chosen. Greedy, with nothing banned, unless said otherwise."""

    max_new_tokens: int = 1024
    """The most tokens to write, the first and last one included; cut to the model's table of positions."""
    num_beams: int = 1
    """1: greedy, or sampling; more: beam search."""
    do_sample: bool = False
    """Draw each token from its distribution instead of taking the likeliest; not together with beams."""
    temperature: float = 1.0
    top_k: int | None = None
    """Draw among the k likeliest tokens."""
    top_p: float | None = None
    """Draw among the likeliest tokens that together hold this much probability."""
    seed: int | None = None
    """The same seed, model and batch draw the same tokens; None draws anew each time."""
    no_repeat_ngram_size: int = 0
    """Forbid any n tokens in a row to occur twice; 0 forbids nothing. It corrupts answers that rightly repeat."""
    early_stopping: bool | Literal["never"] = True
    """Beams: True stops at `num_beams` finished ones; False when no running beam looks able to overtake them; "never"
    when none can."""
    length_penalty: float = 1.0
    """A sequence's score is its log-probability divided by its length to this power."""
    constrained: bool = False
    """Only tokens that the task's grammar allows next, so that every answer can be read; the n-gram ban gives way to
    it. False is the published behaviour."""
    num_return_sequences: int = 1
    """Sequences per question: the best beams, or so many draws."""
    vocabulary: int | None = None
    """Ids from here on have no meaning (rows that only pad the embedding table) and are left out of the softmax."""
    suppressed: tuple[int, ...] = ()
    """Further ids that are never said."""
    location_window: int | None = None
    """Read a coordinate as the mean over so many bins on either side of the one said (`expected_bins`); 0 reads the bin
    itself. None: as the checkpoint says, 0 where it says nothing. Tokens and scores stay what they are."""
    locations: tuple[int, int] | None = None
    """The first location id and the number of them, for `location_window`; a `Predictor` fills it in."""
    forced_first: int | None = 0
    """The token every answer begins with, <s>."""
    forced_last: int | None = 2
    """The token an answer is cut with at `max_new_tokens`, </s>."""
    start: int = 2
    """What the decoder is given before its first token; not part of the answer."""
    end: int = 2
    pad: int = 1

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams", "num_return_sequences"):
            if getattr(self, name) < 1:
                raise OpenFlorenceError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.no_repeat_ngram_size < 0:
            raise OpenFlorenceError(f"no_repeat_ngram_size is 0 or more, not {self.no_repeat_ngram_size}")
        if self.location_window is not None and self.location_window < 0:
            raise OpenFlorenceError(f"location_window is 0 or more bins, not {self.location_window}")
        if self.early_stopping not in (True, False, "never"):
            raise OpenFlorenceError(f'early_stopping is True, False or "never", not {self.early_stopping!r}')
        if self.temperature <= 0:
            raise OpenFlorenceError(f"temperature is above 0, not {self.temperature} (greedy is do_sample=False)")
        if self.top_k is not None and self.top_k < 1:
            raise OpenFlorenceError(f"top_k is at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise OpenFlorenceError(f"top_p lies above 0 and up to 1, not at {self.top_p}")
        if self.do_sample and self.num_beams > 1:
            raise OpenFlorenceError("sampling and beam search exclude each other: set do_sample or num_beams, not both")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            raise OpenFlorenceError(
                f"{self.num_beams} beams cannot return {self.num_return_sequences} sequences: raise num_beams"
            )

    @classmethod
    def published(cls, **changes: Any) -> GenerationConfig:
        """The settings of the published checkpoints: 3 beams, no 3-gram twice, stopping at 3 finished beams."""
        return cls(**{"num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True, **changes})


@dataclass(frozen=True, slots=True)
class Generation:
    """What was written: `num_return_sequences` entries per question, best first, in the order of the questions."""

    ids: list[list[int]]
    """From the first generated token to the end token, both included; the decoder's start token is not."""
    logprobs: list[list[float]]
    """Per token, natural log. Greedy and sampling: of the distribution the token was chosen from, after every
    constraint. Beams: the model's own, a banned alternative's share not given to the others. Forced tokens: 0."""
    sequence_scores: list[float]
    """Sum of the log-probabilities divided by (number of tokens ** length_penalty)."""
    stopped: list[Stopped]
    """"eos": the model ended its answer; "length": it was cut at `max_new_tokens`."""
    beams: list[list[int]]
    """Beam search: the row (question * num_beams + beam) that each token continued. Empty lists otherwise."""
    bins: list[list[float]] = field(default_factory=list)
    """With a `location_window`: per token the mean bin around it, NaN for tokens that are no locations. Empty lists
    otherwise."""
