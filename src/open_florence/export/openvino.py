"""A model as OpenVINO graphs, which `Predictor.from_pretrained` reads without converting them again.

    config.json  generation_config.json  preprocessor_config.json  tokenizer.json
    openvino/{vision,encoder,memory,decoder,head}.xml and .bin   see `inference.openvino_graphs`

`_fp16` and `_int8` before the ending stand for float16 and int8 weights. float16 is how weights are kept, not what is
computed in: they become float32 or bfloat16 when they are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from open_florence.export.parity import Parity, answers, judge, questions
from open_florence.export.settings import write_settings
from open_florence.inference.openvino import FOLDER, SUFFIXES, OpenVinoFlorence, read_graphs
from open_florence.inference.openvino_graphs import compress, convert, need_openvino
from open_florence.model.florence import Florence
from open_florence.processor import Processor


def export_openvino(model: Florence, processor: Processor, folder: Path, dtypes: Sequence[str]) -> list[Parity]:
    """Writes all files into an empty folder, runs them, and says for each dtype how far they are from the model.

    `model` in float32 on the CPU, in evaluation mode; dtypes out of `SUFFIXES`. Raises OSError.
    """
    (folder / FOLDER).mkdir()
    graphs = convert(model, processor.image_size)
    for dtype in dtypes:
        for name, graph in (compress(graphs) if dtype == "int8" else graphs).items():
            path = folder / FOLDER / f"{name}{SUFFIXES[dtype]}.xml"
            need_openvino().save_model(graph, path, compress_to_fp16=dtype == "float16")
    write_settings(model, processor, folder, [])
    return [compare(model, processor, folder, dtype) for dtype in dtypes]


def compare(model: Florence, processor: Processor, folder: Path, dtype: str) -> Parity:
    """Runs the files of one dtype, computing in float32, beside the model."""
    asked = questions(processor)
    wanted = answers(model, *asked)
    compiled = OpenVinoFlorence(model.config, read_graphs(folder, dtype))
    return judge(dtype, answers(compiled, *asked, wanted.tokens), wanted)
