from pathlib import Path

import pytest

from open_florence.errors import OpenFlorenceError
from open_florence.training.plan import LEVELS, RunConfig, read_plan

PLAN = """
model = "tiny"
seed = 3

[[stage]]
name = "low"
image_size = 64
[[stage.data]]
source = "scenes"
scenes = { max_objects = 2 }
[stage.levels]
region = 1.0
[stage.tasks]
OD = 0.5
caption = 2
[stage.train]
steps = 10
learning_rate = 1e-4
freeze = ["vision_tower.*"]

[[stage]]
name = "high"
image_size = 96
[[stage.data]]
source = "photos.jsonl"
weight = 3
[stage.tasks]
CAPTION = 1
[stage.train]
steps = 4
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_a_plan_is_read_with_its_stages_in_order(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path, PLAN))
    assert isinstance(plan, RunConfig)
    low, high = plan.stage
    assert (low.name, low.image_size, low.train.steps, low.train.learning_rate) == ("low", 64, 10, 1e-4)
    assert low.train.freeze == ("vision_tower.*",)
    assert low.data[0].scenes.max_objects == 2
    assert high.data[0].weight == 3
    assert high.mixture == {"<CAPTION>": 1.0}


def test_a_level_shares_its_weight_among_its_tasks(tmp_path: Path) -> None:
    low = read_plan(written(tmp_path, PLAN)).stage[0]
    share = 1 / len(LEVELS["region"])
    assert low.mixture["<OD>"] == pytest.approx(0.5 + share)
    assert low.mixture["<REGION_PROPOSAL>"] == pytest.approx(share)
    assert low.mixture["<CAPTION>"] == 2
    assert sum(low.mixture.values()) == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("steps = 10", 'steps = "ten"', "stage 1, train, steps: Input should be a valid integer"),
        ("steps = 10", "steps = 0", "stage 1, train: steps is 1 or more, not 0"),
        ("learning_rate = 1e-4", "lr = 1e-4", "stage 1, train, lr: "),
        ("caption = 2", "captain = 2", "stage 1, tasks: there is no task 'captain'; did you mean <CAPTION>?"),
        ("region = 1.0", "objects = 1.0", "stage 1, levels, objects"),
        ("max_objects = 2", "max_objects = 0", "stage 1, data 1, scenes: a scene holds 1 or more objects"),
        ('name = "high"', 'name = "low"', "stage: two stages are called 'low'"),
        ('name = "high"', 'name = "high"\ndense_heads = true', "stage 2: dense heads learn from scenes only"),
        ("CAPTION = 1", "", "stage 2: the stage has neither tasks nor levels to learn"),
        ("seed = 3", "sead = 3", "sead: Extra inputs are not permitted"),
        ("[[stage]]", "[[stage", "is not TOML"),
    ],
)
def test_a_mistake_names_its_field(tmp_path: Path, before: str, after: str, sentence: str) -> None:
    assert before in PLAN
    path = written(tmp_path, PLAN.replace(before, after))
    with pytest.raises(OpenFlorenceError) as error:
        read_plan(path)
    assert str(path) in str(error.value)
    assert sentence in str(error.value)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.toml")


def test_the_shipped_recipe_is_a_plan() -> None:
    plan = read_plan(Path(__file__).parents[2] / "recipes" / "curriculum.toml")
    assert [stage.image_size for stage in plan.stage] == [160, 160, 240]
    assert set(LEVELS["pixel"]) < set(plan.stage[1].mixture)


def test_the_plan_in_the_docs_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "train.md").read_text()
    plan = read_plan(written(tmp_path, page.split("```toml\n")[1].split("```")[0]))
    assert plan.stage[0].mixture["<OCR>"] == 0.5
