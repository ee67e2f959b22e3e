"""Whoever annotates: one protocol, and the table of those that come with the package.

| name | answers | finds in the sample | what it is |
|---|---|---|---|
| labels | what the file holds | | labels that people made, in any format of `data.read`; the highest standing |
| florence | any task of the model | boxes or captions, by task | a checkpoint of ours, or a published Florence-2 |
| tesseract | <OCR_WITH_REGION>, <OCR> | | the program Tesseract |
| people | <OD> | | faces and people, by OpenCV's cascade and gradients |
| proposals | <REGION_PROPOSAL> | | selective search and stable regions (MSER), by OpenCV |
| grabcut | <REGION_TO_SEGMENTATION> | <OD> | masks of boxes, by OpenCV's GrabCut |
| attributes | <DENSE_REGION_CAPTION>, <REGION_TO_DESCRIPTION> | <OD> | colour and size of the boxes, in words |
| detector | <OD> | | RT-DETR, DETR and their like, from the hub |
| open_vocabulary | <OD> | | OWLv2 or Grounding DINO, asked for the classes given |
| grounder | <CAPTION_TO_PHRASE_GROUNDING> | captions | Grounding DINO, asked for a caption's phrases |
| segmenter | <REGION_TO_SEGMENTATION> | <OD> | SAM or SAM 2 |
| captioner | <CAPTION>, <DENSE_REGION_CAPTION> | <OD> for regions | BLIP-2 and BLIP |
| writer | <DETAILED_CAPTION>, <MORE_DETAILED_CAPTION> | captions and regions | any OpenAI-compatible endpoint |

Nothing is imported before it is asked for. A package of your own joins by an entry point of the group
"open_florence.specialists"; docs/add_a_specialist.md and examples/specialist_package show how.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample

ENTRY_POINTS = "open_florence.specialists"
HUMAN = "human"
"""The name of the specialist that reads people's labels, and so what stands before the @ of their source."""

SPECIALISTS: dict[str, str] = {
    "labels": "open_florence.specialists.labels:Labels",
    "florence": "open_florence.specialists.florence:Florence",
    "tesseract": "open_florence.specialists.tesseract:Tesseract",
    "people": "open_florence.specialists.people:People",
    "proposals": "open_florence.specialists.proposals:Proposals",
    "grabcut": "open_florence.specialists.grabcut:GrabCut",
    "attributes": "open_florence.specialists.attributes:Attributes",
    "detector": "open_florence.specialists.detector:Detector",
    "open_vocabulary": "open_florence.specialists.open_vocabulary:OpenVocabularyDetector",
    "grounder": "open_florence.specialists.grounder:Grounder",
    "segmenter": "open_florence.specialists.segmenter:Segmenter",
    "captioner": "open_florence.specialists.captioner:Captioner",
    "writer": "open_florence.specialists.writer:Writer",
}
"""Name -> "module:factory"; a factory takes options as keywords and returns a `Specialist`."""


class Specialist(Protocol):
    """What the engine needs of an annotator; nothing to inherit from."""

    @property
    def name(self) -> str:
        """What it is called, as "detector"; without an @."""
        ...

    @property
    def version(self) -> str:
        """Of its weights, its program and the settings that change its answers: another version is another source."""
        ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tokens of the tasks it answers, as "<OD>"."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Tokens of the tasks whose annotations it wants to find in `Sample.annotations`; empty: the pixels suffice."""
        ...

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """A list of annotations per sample, in order; coordinates in pixels of the image at `Sample.path`.

        The caller writes the source. One image may fail the batch with any exception: the caller then asks about each
        by itself.
        """
        ...


def load_specialist(name: str, /, **options: Any) -> Specialist:
    """The specialist of a row of `SPECIALISTS`, or of an installed package's entry point, made with `options`.

    Raises OpenFlorenceError for a name there is not, an option it does not know, whatever it lacks (a program, a
    library, a model), and an object that is no specialist.
    """
    factory = _factory(name)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        known = ", ".join(options_of(name)) or "none"
        raise OpenFlorenceError(f"the options of the specialist {name} are {known}: {error}") from None
    specialist: Specialist = factory(**options)
    _check(name, specialist)
    return specialist


def options_of(name: str) -> tuple[str, ...]:
    """The names of the options that a specialist takes. Raises OpenFlorenceError for a name there is not."""
    return tuple(inspect.signature(_factory(name)).parameters)


def source_of(specialist: Specialist) -> str:
    """What its annotations call their source: "detector@1.2"."""
    return f"{specialist.name}@{specialist.version}"


def _factory(name: str) -> Callable[..., Any]:
    if name in SPECIALISTS:
        module, _, attribute = SPECIALISTS[name].partition(":")
        factory: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return factory
    others = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in others:
        nearest = difflib.get_close_matches(name, [*SPECIALISTS, *others], n=1, cutoff=0.0)
        raise OpenFlorenceError(f"there is no specialist {name!r}; did you mean {nearest[0]}?")
    return _loaded(others[name])


def _loaded(point: EntryPoint) -> Callable[..., Any]:
    try:
        factory: Callable[..., Any] = point.load()
    except Exception as error:  # another package's code, which may fail in any way
        raise OpenFlorenceError(
            f"the specialist {point.name} cannot be imported from {point.value}: {type(error).__name__}: {error}"
        ) from error
    return factory


def _check(name: str, specialist: Any) -> None:
    for field in ("name", "version"):
        value = getattr(specialist, field, None)
        if not isinstance(value, str) or not value or "@" in value:
            raise OpenFlorenceError(
                f"the {field} of the specialist {name} is a word or number without @, not {value!r}"
            )
    for field in ("tasks", "needs"):
        tokens = getattr(specialist, field, None)
        if not isinstance(tokens, tuple) or not all(isinstance(token, str) for token in tokens):
            raise OpenFlorenceError(f"the {field} of the specialist {name} are a tuple of task tokens, not {tokens!r}")
    if not callable(getattr(specialist, "annotate", None)):
        raise OpenFlorenceError(f"the specialist {name} has no method annotate(samples)")
