import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import open_florence as of
from open_florence.cli import run

STAGES = """
[[stage]]
name = "pairs"
objective = "contrastive"
image_size = 64
batch_size = 3
data = [{ source = "scenes" }]
tasks = { DETAILED_CAPTION = 1 }
train = { steps = 2, log_every = 1 }

[[stage]]
name = "see"
objective = "dense"
batch_size = 2
data = [{ source = "scenes", scenes = { max_objects = 2 } }]
train = { steps = 2, log_every = 1 }

[[stage]]
name = "low"
batch_size = 2
dense_heads = true
calibrate = true
data = [{ source = "scenes" }]
levels = { image = 1, region = 1, pixel = 1 }
train = { steps = 3, log_every = 1, sigma = 5.0, sigma_end = 2.0, muon_scale = 2.0 }

[[stage]]
name = "high"
image_size = 96
batch_size = 2
data = [{ source = "boxes", weight = 2 }, { source = "scenes" }]
tasks = { OD = 1, CAPTION = 1 }
train = { steps = 2, log_every = 1, evaluate_every = 1 }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boxes").mkdir()
    samples = []
    for number in range(3):
        Image.new("RGB", (64, 48), (80 * number, 0, 0)).save(tmp_path / "boxes" / f"{number}.png")
        found = of.Annotation("<OD>", regions=(of.Region.box(4, 4, 20, 30, label="box"),), source="human")
        samples.append(of.Sample(f"id-{number}", f"{number}.png", (64.0, 48.0), (found,)))
    of.write(tmp_path / "boxes" / "annotations.jsonl", samples)
    return tmp_path


def test_a_run_in_stages_ends_with_a_checkpoint_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looking = '[evaluation]\ndata = "scenes:validation"\nlimit = 1\ntasks = ["OD"]\nbest = "od_ap50"\n'
    (folder / "run.toml").write_text("from_scratch = true\n" + looking + STAGES)
    assert run(["train", "run.toml", "--out", "out"]) == 0
    assert "detection AP50" in capsys.readouterr().out
    steps = {
        stage: [json.loads(line)["step"] for line in (folder / "out" / stage / "log.jsonl").read_text().splitlines()]
        for stage in ("pairs", "see", "low", "high")
    }
    assert [sorted(set(s)) for s in steps.values()] == [[1, 2], [1, 2], [1, 2, 3], [1, 2]]
    first = of.Predictor.from_pretrained(folder / "out" / "checkpoint")
    assert first.processor.image_size == 96

    assert run(["train", "run.toml", "--out", "out"]) == 0, "finished stages are passed through"
    again = of.Predictor.from_pretrained(folder / "out" / "checkpoint")
    for ours, theirs in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_mistakes_are_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = '[[stage]]\nname = "a"\ndata = [{ source = "boxes" }]\ntasks = { VQA = 1 }\ntrain = { steps = 1 }\n'
    for text, sentence in (
        (stage, "stage a: boxes has none of the stage's tasks, <VQA>"),
        (stage.replace('"boxes"', '"nowhere"'), "there is no file or folder"),
        (stage.replace("steps = 1", 'steps = "one"'), "stage 1, train, steps: Input should be a valid integer"),
    ):
        (folder / "run.toml").write_text(text)
        assert run(["train", "run.toml", "--out", "out"]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert len(error.strip().splitlines()) == 1
