"""Answers in places: labels and boxes, quads or polygons, as `tasks.regions` and `tasks.phrases` write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from open_florence.legal_tokens.automaton import AXES, Automaton, Choice, State
from open_florence.legal_tokens.lexicon import HALF, NO_WORDS, Lexicon, is_label
from open_florence.legal_tokens.listed import Listed
from open_florence.schema import Kind
from open_florence.tasks.regions import POINTS

Form = Literal["", "fixed", "fenced", "bare"]
"""How the regions of an answer are written, the same for all of them: boxes or quads; polygons between <poly> and
</poly>; one polygon without them. "": not decided yet."""


class RegionAutomaton(Automaton):
    """Regions of one form, each whole and under a visible label where labels are due, or nothing at all.

    States: ("between", form, whether a region may follow without a new label); ("label", form, the words so far, or the
    place in the list); ("fixed", form, locations said); ("polygon", form, locations said of this part: 0, 1 for any odd
    number, 2 for any even one).
    """

    def __init__(
        self, lexicon: Lexicon, kinds: tuple[Kind, ...], labelled: bool = True, listed: Listed | None = None
    ) -> None:
        """`listed` are the labels there are; None allows all."""
        super().__init__(lexicon)
        kind = kinds[0]
        self.count = 0 if kind == "polygon" else POINTS[kind] * AXES
        self.polygons = "polygon" in kinds
        self.labelled, self.listed = labelled, listed
        self.each_its_own = labelled and kind == "quad"
        self.start: State = ("between", "", not labelled)
        self.slack = 2 + max(self.count, AXES + 2) + (listed.longest if listed else 0)

    def advance(self, state: Any, token: int) -> State | None:
        """See `Automaton`."""
        if token == self.lexicon.end:
            return None
        where, form, said = state
        if where == "fixed":
            return self._locate(form, said, token)
        if where == "polygon":
            return self._draw(form, said, token)
        if token in self.lexicon.locations or token == self.lexicon.marks["<poly>"]:
            return self._begin(form, token) if self._may_begin(where, said) else None
        if not self.labelled:
            return None
        if self.listed is None:
            words = self.lexicon.say(said if where == "label" else NO_WORDS, token)
            return None if words is None else ("label", form, words)
        place = self.listed.advance(said, token) if where == "label" else self.listed.begin(token)
        return ("label", form, place) if place else None

    def alike(self, state: Any) -> State:
        """See `Automaton`: which half of a character a label begins with makes no difference."""
        where, form, said = state
        if where == "label" and self.listed is None and said[1] and not said[0]:
            return where, form, HALF
        return state  # type: ignore[no-any-return]

    def choices(self, state: Any) -> Iterator[Choice]:
        """See `Automaton`."""
        where, form, said = state
        if where == "fixed":
            yield self._location(self.count - said)
        elif where == "polygon":
            yield from self._polygon_choices(form, said)
        elif where == "between":
            yield self._end
            if self.labelled:
                yield from self._label_choices(form, None)
        else:
            yield from self._label_choices(form, said)
            if said == NO_WORDS:  # blanks at the end of an answer say nothing
                yield self._end
        if where in ("between", "label") and self._may_begin(where, said):
            yield from self._beginnings(form)

    def _may_begin(self, where: str, said: Any) -> bool:
        """Whether a region may begin: one is due after a label, or may follow another without one."""
        if where == "between":
            return bool(said)
        return self.listed.may_stop(said) if self.listed else is_label(said)

    def _begin(self, form: Form, token: int) -> State | None:
        """The state after the first token of a region."""
        if token == self.lexicon.marks["<poly>"]:
            return ("polygon", "fenced", 0) if self.polygons and form in ("", "fenced") else None
        if self.count:
            return self._locate("fixed", 0, token) if form in ("", "fixed") else None
        return ("polygon", "bare", 1) if form == "" else None

    def _locate(self, form: Form, said: int, token: int) -> State | None:
        if token not in self.lexicon.locations:
            return None
        return ("fixed", form, said + 1) if said + 1 < self.count else ("between", form, not self.each_its_own)

    def _draw(self, form: Form, said: int, token: int) -> State | None:
        if token in self.lexicon.locations:
            return ("polygon", form, 2 if said == 1 else 1)
        if said != 2:
            return None
        if token == self.lexicon.marks["<sep>"]:
            return ("polygon", form, 0)
        return ("between", form, True) if token == self.lexicon.marks["</poly>"] and form == "fenced" else None

    def _beginnings(self, form: Form) -> Iterator[Choice]:
        """How a region may begin."""
        if self.count and form in ("", "fixed"):
            yield self._location(self.count)
        if self.polygons and form in ("", "fenced"):
            yield Choice([self.lexicon.marks["<poly>"]], AXES + 2)
        if not self.count and not self.labelled and form == "":
            yield self._location(AXES)

    def _label_choices(self, form: Form, said: Any) -> Iterator[Choice]:
        """How a label may begin or, if something is said of it, go on."""
        after = 1 + min(choice.rest for choice in self._beginnings(form))
        if self.listed is None:
            yield Choice(self.lexicon.mask(said or NO_WORDS), after)
            return
        for token, rest in self.listed.options(said).items():
            yield Choice([token], rest + after)

    def _polygon_choices(self, form: Form, said: int) -> Iterator[Choice]:
        closed = 2 if form == "fenced" else 1  # </poly> and the end, or the end
        if said == 1:
            yield self._location(closed)
            return
        yield self._location(1 + closed)
        if said == 0:
            return
        yield Choice([self.lexicon.marks["<sep>"]], 2 + closed)
        yield Choice([self.lexicon.marks["</poly>"]], 1) if form == "fenced" else self._end
