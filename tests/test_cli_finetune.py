import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import open_florence as of
from open_florence.cli import run
from open_florence.cli.finetune import BEST, SPLITS, split
from open_florence.evaluation import METRICS, Answers


def sample(number: int) -> of.Sample:
    return of.Sample(f"id-{number}", f"{number}.png", (64.0, 48.0), (of.Annotation("<OD>"),))


def test_an_image_keeps_its_part_whatever_else_is_there() -> None:
    many = split([sample(number) for number in range(1000)])
    few = split([sample(number) for number in range(0, 1000, 7)])
    assert all(set(few[name]) <= set(many[name]) for name in SPLITS)
    for name, share in SPLITS.items():
        assert len(many[name]) == pytest.approx(1000 * share, abs=40)


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    folder = tmp_path / "boxes"
    folder.mkdir()
    samples = []
    for number in range(14):
        image = Image.new("RGB", (64, 48), (0, 0, 0))
        image.paste((200, 20 * number, 0), (number, 5, number + 30, 40))
        image.save(folder / f"{number}.png")
        box = of.Region.box(number, 5, number + 30, 40, label="box")
        found = of.Annotation("<OD>", regions=(box,), source="human")
        caption = of.Annotation("<CAPTION>", f"a box at {number}", source="human")
        samples.append(of.Sample(f"id-{number}", f"{number}.png", (64.0, 48.0), (found, caption)))
    of.write(folder / "annotations.jsonl", samples)
    return folder


def test_a_folder_of_boxes_becomes_a_checkpoint_and_a_table(
    boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    command = ["finetune", "boxes", "--out", str(out), "--steps", "4", "--batch-size", "2", "--image-size", "96"]
    assert run(command) == 0
    assert "detection AP50" in capsys.readouterr().out
    assert "detection AP50" in (out / "test.md").read_text()
    page = (out / "samples" / "report" / "index.html").read_text()
    assert "human" in page, "the truth stands beside the answers"
    parts = {name: list(of.read(out / f"{name}.jsonl")) for name in SPLITS}
    assert sum(map(len, parts.values())) == 14
    assert all(Path(sample.path).is_file() for samples in parts.values() for sample in samples)
    predictor = of.Predictor.from_pretrained(out / "checkpoint")
    assert predictor.processor.image_size == 96
    assert isinstance(predictor.predict(boxes / "0.png", "<OD>"), of.Annotation)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no file or folder"),
        (["boxes", "--task", "VQA"], "none of the images has a <VQA> annotation to learn from"),
        (["boxes", "--replay", "nowhere"], "there is no file or folder"),
        (["boxes", "--task", "ODD"], "did you mean <OD>"),
    ],
)
def test_mistakes_are_one_sentence(
    boxes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["finetune", *arguments, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.strip().splitlines()) == 1


def test_several_tasks_adapters_and_replay(
    boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["finetune", "boxes", "--out", "out", "--task", "OD,CAPTION", "--steps", "3", "--batch-size", "2"]
    assert run([*command, "--lora", "2", "--replay", "scenes"]) == 0
    log = [json.loads(line) for line in (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()]
    assert any("validation/od_ap50" in line for line in log)
    said = capsys.readouterr().out
    assert "detection AP50" in said
    assert "CIDEr" in said
    merged, adapted = (of.Predictor.from_pretrained(tmp_path / "out" / name) for name in ("checkpoint", "adapter"))
    for ours, theirs in zip(merged.model.parameters(), adapted.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_from_scratch_starts_from_random_weights(boxes: Path, tmp_path: Path) -> None:
    for name, extra in (("tuned", []), ("scratch", ["--from-scratch"])):
        assert run(["finetune", str(boxes), "--out", str(tmp_path / name), "--steps", "1", *extra]) == 0
    tiny, tuned, scratch = (
        of.Predictor.from_pretrained(source).model.vision_tower.convs[0].conv.weight
        for source in ("tiny", tmp_path / "tuned" / "checkpoint", tmp_path / "scratch" / "checkpoint")
    )
    assert (tiny - tuned).abs().max() < 0.01 < (tiny - scratch).abs().max()


def test_the_best_weights_are_judged_by_a_figure_that_evaluation_gives() -> None:
    answers = Answers()
    for _ in range(2):
        region = of.Region.box(1, 1, 9, 9, label="a b")
        truth = of.Annotation("<X>", "a b c d", (region,), query="a b")
        answers.add(truth, truth, 0, (10.0, 10.0))
    for task, figure in BEST.items():
        assert figure in {row.key for row in METRICS[task](answers)}, task
