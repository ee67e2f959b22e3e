"""The JSON files and the tokenizer beside the graphs, as the onnx-community repositories have them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tasks import TASKS, PhraseGrammar, RegionGrammar, Task

CLASSIFICATION = "<CLASSIFICATION>"
"""Answered by scoring the labels, which transformers.js cannot do."""


def write_settings(model: Florence, processor: Processor, folder: Path, large: Sequence[str]) -> None:
    """Writes config.json, generation_config.json, preprocessor_config.json and the tokenizer's files.

    `large` names the graphs whose weights stand in a file of their own.
    """
    config = replace(model.config, image_size=processor.image_size)
    record = config.to_json("microsoft")
    del record["auto_map"]  # there is no Python beside it
    record["num_image_tokens"] = processor.image_seq_length
    if large:
        record["transformers.js_config"] = {"use_external_data_format": dict.fromkeys(large, 1)}
    _write(folder / "config.json", record)
    _write(folder / "generation_config.json", config.generation_json())
    processor.save(folder)
    path = folder / "preprocessor_config.json"
    _write(path, json.loads(path.read_text(encoding="utf-8")) | task_settings())


def task_settings() -> dict[str, dict[str, str]]:
    """What the published preprocessor_config.json tells transformers.js of the tasks: prompts and forms of answers."""
    tasks = {token: task for token, task in TASKS.items() if token != CLASSIFICATION}
    return {
        "tasks_answer_post_processing_type": {token: _form(task) for token, task in tasks.items()},
        "task_prompts_without_inputs": {token: task.prompt for token, task in tasks.items() if task.query == "none"},
        "task_prompts_with_input": {token: task.prompt for token, task in tasks.items() if task.query != "none"},
    }


def _form(task: Task) -> str:
    """The published name of the form of a task's answer (section D of the original processor)."""
    grammar = task.grammar
    if isinstance(grammar, PhraseGrammar):
        return "phrase_grounding"
    if not isinstance(grammar, RegionGrammar):
        return "pure_text"
    boxes = "description_with_bboxes" if grammar.labelled else "bboxes"
    names: dict[tuple[str, ...], str] = {("box",): boxes, ("quad",): "ocr", ("polygon",): "polygons"}
    return names.get(grammar.kinds, "description_with_bboxes_or_polygons")


def _write(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
