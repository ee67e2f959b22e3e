"""The texts of annotations in a strip under their picture, each grounded phrase on a patch of its region's colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw

from open_florence.report.colours import Palette, ink
from open_florence.report.fonts import Font, font_for, printable
from open_florence.report.marks import Run, runs_of, task_name
from open_florence.schema import Annotation, Region

PAPER, PRINT, FAINT = "#ffffff", "#1d2026", "#6b7280"
LONGEST = 2000
"""Characters of one text that are drawn; the rest is in the annotation."""

Placed = tuple[float, int, str, Run | None]
"""One word: its left edge in pixels, its line, its letters, and the run it belongs to (None: the task's name)."""


def add_captions(picture: Image.Image, annotations: Sequence[Annotation], palette: Palette, size: int) -> Image.Image:
    """The picture with the annotations' texts in letters of `size` pixels underneath; itself where none has a text.

    An answer about a region stands at its region in the picture and is not repeated here.
    """
    texts = [a for a in annotations if a.text and not isinstance(a.query, Region)]
    if not texts:
        return picture
    paragraphs = [_paragraph(annotation, palette) for annotation in texts]
    font = font_for([text for paragraph in paragraphs for text, _ in paragraph], size)
    margin, line_height = size // 2, round(size * 1.5)
    words: list[Placed] = []
    line = 0
    for paragraph in paragraphs:
        for left, row, text, run in _wrap(paragraph, font, picture.width - 2 * margin):
            words.append((left + margin, line + row, text, run))
        line = words[-1][1] + 1
    sheet = Image.new("RGB", (picture.width, picture.height + line * line_height + 2 * margin), PAPER)
    sheet.paste(picture, (0, 0))
    brush = ImageDraw.Draw(sheet)
    for left, row, text, run in words:
        middle = picture.height + margin + (row + 0.5) * line_height
        fill = FAINT if run is None else PRINT
        if run is not None and run.colour is not None:
            right = left + font.getlength(text)
            brush.rectangle((left, middle - 0.6 * size, right, middle + 0.6 * size), fill=run.colour)
            fill = ink(run.colour)
        brush.text((left, middle), text, font=font, fill=fill, anchor="lm")
    return sheet


def _paragraph(annotation: Annotation, palette: Palette) -> list[tuple[str, Run | None]]:
    """Pieces of text, each with the run it belongs to: what was asked, then the answer."""
    asked = task_name(annotation.task)
    if isinstance(annotation.query, str) and annotation.query != annotation.text:
        asked = f"{asked}: {annotation.query}"
    answered = [(printable(run.text[:LONGEST]), run) for run in runs_of(annotation, palette)]
    return [(printable(f"{asked}  "), None), *answered]


def _wrap(pieces: Sequence[tuple[str, Run | None]], font: Font, width: float) -> Iterator[Placed]:
    """The words from left to right in lines of `width` pixels; one wider than a line is broken within."""
    left, line = 0.0, 0
    for text, run in pieces:
        for word in _words(text, font, width):
            length = font.getlength(word)
            if left > 0 and left + font.getlength(word.rstrip()) > width:
                left, line = 0.0, line + 1
            yield left, line, word, run
            left += length


def _words(text: str, font: Font, width: float) -> Iterator[str]:
    """Words with the space that follows them, none wider than `width` unless it is a single character."""
    word = ""
    for character in text:
        if word and (word[-1] == " " != character or font.getlength(word + character) > width):
            yield word
            word = ""
        word += character
    if word:
        yield word
