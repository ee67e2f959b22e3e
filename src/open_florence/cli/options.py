"""What several subcommands share: the options that choose a model, and how tasks and their queries are written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    from open_florence.generation import GenerationConfig
    from open_florence.inference.predictor import Predictor
    from open_florence.selection import Selection
    from open_florence.tasks import Task


class DType(StrEnum):
    """Number formats that a model runs in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"
    AUTO = "auto"


class Backend(StrEnum):
    """Engines that a checkpoint is computed with."""

    TORCH = "torch"
    OPENVINO = "openvino"


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="tiny (ships with the package), a folder, or a name on the hub.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; the CPU unless given.")]
DTypeOption = Annotated[
    DType | None,
    typer.Option(
        "--dtype",
        help="Number format, float32 unless given; auto: bfloat16 where the device has it; int8 with OpenVINO.",
    ),
]
BackendOption = Annotated[
    Backend | None,
    typer.Option("--backend", help="torch, or openvino (CPU only); what the folder is made for unless given."),
]
PublishedOption = Annotated[
    bool, typer.Option("--published", help="Decode as Microsoft's checkpoints do: 3 beams, no 3 tokens twice.")
]


ConstrainedOption = Annotated[
    bool, typer.Option("--constrained", help="Only tokens that the task's grammar allows: every answer can be read.")
]


LengthOption = Annotated[
    int | None,
    typer.Option("--max-new-tokens", min=2, help="Cut answers at so many tokens; what was cut is marked incomplete."),
]


ThresholdOption = Annotated[
    float, typer.Option("--threshold", help="Leave out regions with a lower score (place x label), 0 to 1.")
]
NmsOption = Annotated[
    float | None,
    typer.Option("--nms", help="Leave out regions that overlap a better one of the same label by more than this IoU."),
]


def selection_settings(threshold: float, nms: float | None) -> Selection | None:
    """Which regions are kept; None where all are. Raises OpenFlorenceError for numbers outside 0 to 1."""
    from open_florence.selection import Selection

    return None if threshold == 0 and nms is None else Selection(threshold, nms)


ViewsOption = Annotated[
    int,
    typer.Option("--views", help="Boxes are what several views agree on: 2 mirrors the image, 8 turns it as well."),
]


def with_views(predictor: Predictor, views: int) -> Any:
    """The predictor, or one that asks it about so many views. Raises OpenFlorenceError for a number there is not."""
    from open_florence.inference.views import ViewPredictor

    return predictor if views == 1 else ViewPredictor(predictor, views)


TileOption = Annotated[
    str | None,
    typer.Option(
        "--tile",
        help="Read larger images in overlapping tiles as well: their side in pixels, or auto, the model's own.",
    ),
]
OverlapOption = Annotated[
    float, typer.Option("--overlap", help="With --tile: how much of a side neighbouring tiles share, 0 to 1.")
]


def with_tiles(predictor: Any, tile: str | None, overlap: float) -> Any:
    """The predictor, or one that reads large images in tiles too. Raises OpenFlorenceError for tiles that cannot be."""
    from open_florence.inference.tiling import TilePredictor

    if tile is None:
        return predictor
    if tile != "auto" and not tile.isdecimal():
        raise OpenFlorenceError(f"--tile is a number of pixels or auto, not {tile!r}")
    return TilePredictor(predictor, None if tile == "auto" else int(tile), overlap)


def generation_settings(
    published: bool, max_new_tokens: int | None, constrained: bool = False
) -> GenerationConfig | None:
    """How answers are written; None is the predictor's own way."""
    from open_florence.generation import GenerationConfig

    if not published and max_new_tokens is None and not constrained:
        return None
    settings = GenerationConfig.published() if published else GenerationConfig()
    return replace(settings, max_new_tokens=max_new_tokens or settings.max_new_tokens, constrained=constrained)


def load_predictor(model: str, device: str | None, dtype: DType | None, backend: Backend | None = None) -> Any:
    """The predictor of the options; an ONNX export's where the folder holds one and no weights.

    Raises OpenFlorenceError for a model that cannot be had.
    """
    from open_florence.edge.folder import is_export

    if backend is None and is_export(model):
        from open_florence.edge import EdgePredictor

        if device not in (None, "cpu"):
            raise OpenFlorenceError(f"an ONNX export runs on the CPU, not on {device}")
        return EdgePredictor.from_folder(model, dtype=dtype.value if dtype and dtype is not DType.AUTO else None)
    from open_florence.inference.predictor import Predictor

    chosen = backend.value if backend else None
    return Predictor.from_pretrained(model, dtype=dtype.value if dtype else None, device=device, backend=chosen)


def parse_tasks(values: Sequence[str], query: str | None = None) -> list[tuple[str, Any]]:
    """The tasks of a command line as (token, query), queries being words or the four numbers of a region.

    Each value is one task, or several with commas between; TASK:query gives a query, and a comma inside it stays part
    of it unless the name of a task follows. `query` goes to the tasks that need one and have none. A value that is a
    question, as "What is on the table?", is a free prompt. Raises OpenFlorenceError for a task that does not exist and
    for queries that are missing, superfluous or of the wrong kind.
    """
    from open_florence.tasks import find_task

    named = [(find_task(name), words) for value in values for name, words in _split(value)]
    if not named:
        raise OpenFlorenceError("no task is given; see `open-florence tasks`")
    takes_none = all(task.query == "none" or words is not None for task, words in named)
    asked = []
    for task, words in named:
        if words is None and query is not None and (task.query != "none" or takes_none):
            words = query
        asked.append((task.token, _query(task, words)))
    return asked


def _split(value: str) -> list[tuple[str, str | None]]:
    """One value of an option as names and queries."""
    if value.strip().endswith(("?", ".")) and not _starts_with_name(value):
        return [(value.strip(), None)]
    found: list[tuple[str, str | None]] = []
    for piece in value.split(","):
        if found and found[-1][1] is not None and not _starts_new_task(piece):
            name, words = found[-1]
            found[-1] = (name, f"{words},{piece}")
        elif piece.strip():
            name, colon, words = piece.partition(":")
            found.append((name.strip(), words.strip() if colon else None))
    return found


def _starts_with_name(value: str) -> bool:
    """Whether a value begins with what has to be the name of a task, spelt rightly or not, not with a question."""
    return re.match(r"\s*<?\w+>?\s*([:,]|$)", value) is not None and (_known(value) or _looks_like_name(value))


def _starts_new_task(piece: str) -> bool:
    """Whether what follows a comma in a query is another task: a name in capitals or brackets.

    After a space it has to be a known one: "a sign saying STOP, GO" is all query, "OD:a,CAPTOIN" holds a mistake.
    """
    return _looks_like_name(piece) and (_known(piece) or not piece.startswith(" "))


def _looks_like_name(text: str) -> bool:
    return re.match(r"\s*(<\w+>|[A-Z][A-Z0-9_]+)\s*(:|,|$)", text) is not None


def _known(text: str) -> bool:
    from open_florence.tasks import find_task

    try:
        find_task(re.split("[:,]", text)[0].strip())
    except OpenFlorenceError:
        return False
    return True


def _query(task: Task, words: str | None) -> Any:
    """The query of a task, checked against what the task takes."""
    name = task.token.strip("<>")
    if words is None or not words.strip():
        if task.query != "none":
            example = "red car" if task.query == "text" else "10,20,200,150"
            kind = "words" if task.query == "text" else "a region (x1,y1,x2,y2 in pixels)"
            raise OpenFlorenceError(f'{task.token} needs {kind} as its query, written as "{name}:{example}"')
        return None
    if task.query == "region" and not words.strip().startswith("<loc_"):
        try:
            x1, y1, x2, y2 = (float(number) for number in re.split(r"[,\s]+", words.strip()))
        except ValueError:
            raise OpenFlorenceError(
                f"{task.token} needs a region as its query, x1,y1,x2,y2 in pixels, not {words!r}"
            ) from None
        return (x1, y1, x2, y2)
    task.question(words, (1.0, 1.0))  # refuses a query that the task does not take
    return words
