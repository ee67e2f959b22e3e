"""Scenes of the user's own cut-outs: two drawn here, a mug and a leaf."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import mask_iou, rasterize
from open_florence.scenes import SceneConfig, dense_heads, dense_labels, make_scene
from open_florence.scenes.sprites import load_sprites


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("sprites")
    mug = Image.new("RGBA", (120, 100))
    pen = ImageDraw.Draw(mug)
    pen.rectangle((10, 10, 80, 90), fill=(180, 60, 40, 255))
    pen.ellipse((70, 25, 112, 70), outline=(180, 60, 40, 255), width=10)
    (root / "tea_mug").mkdir()
    mug.save(root / "tea_mug" / "1.png")
    leaf = Image.new("RGBA", (60, 140))
    ImageDraw.Draw(leaf).polygon([(30, 4), (55, 60), (30, 135), (5, 60)], fill=(40, 150, 60, 255))
    leaf.save(root / "leaf_02.png")
    return str(root)


def test_classes_are_named_by_file_or_folder_and_cut_to_what_shows(folder: str) -> None:
    sprites = load_sprites(folder)
    assert list(sprites) == ["leaf", "tea mug"]
    assert sprites["leaf"][0].shape == (132, 51, 4)


def test_scenes_of_sprites_are_labelled_by_class(folder: str) -> None:
    config = SceneConfig(sprites=folder)
    assert dense_heads(config)["shape"] == ("class", 2)
    names, texts = set(), []
    for seed in range(40):
        scene = make_scene(seed, config)
        for k, thing in enumerate(scene.objects):
            rows, columns = np.nonzero(scene.id_map == k)
            assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert thing.description == thing.name
            assert thing.colour == thing.texture == ""
            if thing.name == "leaf":
                assert mask_iou(rasterize(thing.parts, (160, 160)), scene.id_map == k) > 0.85
            names.add(thing.name)
        texts += [a.text for a in scene.annotations if a.task == "<DETAILED_CAPTION>"]
        labels = dense_labels(scene, (10, 10))
        on = labels["object"] == 1
        assert set(np.unique(labels["shape"][on])) <= {0, 1}
        assert (labels["colour"] == -100).all()
    assert names == {"leaf", "tea mug"}
    assert any("two tea mugs" in text for text in texts)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "there is no folder of sprites"),
        ([], "holds no .png or .webp"),
        ([Image.new("RGB", (8, 8))], "is no cut-out"),
        ([Image.new("RGBA", (8, 8))], "is no cut-out"),
    ],
)
def test_unusable_folders_are_named(tmp_path: Path, files: list[Image.Image] | None, message: str) -> None:
    root = tmp_path / "sprites"
    if files is not None:
        root.mkdir()
        for k, image in enumerate(files):
            image.save(root / f"thing{k}.png")
    with pytest.raises(OpenFlorenceError, match=message):
        make_scene(0, SceneConfig(sprites=str(root)))
