"""engine.toml: what may stand in it, and the one sentence for what may not."""

import pytest

from open_florence.data_engine.config import plain, read_config, resolve, resolve_options
from open_florence.errors import OpenFlorenceError

FULL = """
images = ["../photos", "https://example.org/a.jpg"]
take_in = true
tasks = ["od", "CAPTION"]
shard = 8

[[specialist]]
name = "florence"
model = "tiny"
timeout = 60

[[specialist]]
name = "people"
isolate = false

[[filter]]
name = "score"
thresholds = {default = 0.3, person = 0.5}

[[enhance]]
name = "grounding"

[train]
steps = 400
start = "last"
tasks = ["OD"]

[audit]
labels = "../human.json"

[guard]
allowed = 0.02
"""


def written(tmp_path, text):
    (tmp_path / "engine.toml").write_text(text)
    return tmp_path


def test_a_full_file(tmp_path):
    config = read_config(written(tmp_path, FULL))
    florence, people = config.specialist
    assert (florence.name, florence.timeout, florence.options) == ("florence", 60, {"model": "tiny"})
    assert (people.isolate, people.options) == (False, {})
    assert config.tasks == ("<OD>", "<CAPTION>")
    assert config.filter[0].options == {"thresholds": {"default": 0.3, "person": 0.5}}
    assert (config.train.steps, config.train.start, config.train.tasks) == (400, "last", ("<OD>",))
    assert config.guard == {"allowed": 0.02}
    assert plain(config)["specialist"][0]["model"] == "tiny"


def test_little_is_enough(tmp_path):
    config = read_config(written(tmp_path, 'images = ["a"]\n[[specialist]]\nname = "people"\n'))
    assert config.train is None
    assert config.specialist[0].isolate


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("images = [", "is not TOML"),
        ("", "images: Field required"),
        ("images = []\n[train]", "images: "),
        ('images = ["a"]', r"there is no \[\[specialist\]\] and no \[train\]"),
        ('images = ["a"]\nshards = 3\n[train]', "shards: Extra inputs"),
        ('images = ["a"]\ntasks = ["ODD"]\n[train]', "tasks: there is no task 'ODD'; did you mean <OD>"),
        ('images = ["a"]\n[[specialist]]\nname="x"\n[[specialist]]\ntimeout = 3', "specialist 2, name: Field required"),
        ('images = ["a"]\n[[specialist]]\nname="x"\ntimeout = -3', "specialist 1, timeout: "),
        ('images = ["a"]\n[[specialist]]\nname="x"\nisolate = false\ntimeout = 3', "a timeout needs isolate = true"),
        ('images = ["a"]\n[train]\nsteps = 0\nsped = 3', "train, steps: .*; train, sped: Extra"),
    ],
)
def test_a_mistake_is_named_by_its_place(tmp_path, text, reason):
    with pytest.raises(OpenFlorenceError, match=reason):
        read_config(written(tmp_path, text))


def test_no_file_says_how_to_begin(tmp_path):
    with pytest.raises(OpenFlorenceError, match="open-florence engine init"):
        read_config(tmp_path)


def test_paths_are_taken_from_the_folder(tmp_path):
    (tmp_path / "weights").mkdir()
    assert resolve(tmp_path, "../photos") == str(tmp_path / "../photos")
    assert resolve(tmp_path, "http://a/b.jpg") == "http://a/b.jpg"
    options = {"model": "./weights", "name": "PekingU/r18", "classes": ["a/b"], "count": 3}
    assert resolve_options(tmp_path, options) == {**options, "model": str(tmp_path / "weights")}
