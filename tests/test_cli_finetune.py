from pathlib import Path

import pytest
from PIL import Image

import open_florence as of
from open_florence.cli import run
from open_florence.cli.finetune import SPLITS, split


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
        samples.append(
            of.Sample(f"id-{number}", f"{number}.png", (64.0, 48.0), (of.Annotation("<OD>", regions=(box,)),))
        )
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
        (["boxes", "--task", "CAPTION"], "only <OD> can be fine-tuned from the command line, not <CAPTION>"),
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
