"""The public names: documented, exported and reachable, and importing the package is quick."""

import os
import re
import subprocess
import sys

import pytest

import open_florence


def test_what_is_exported_is_what_is_documented() -> None:
    documented = set()
    for line in (open_florence.__doc__ or "").splitlines():
        if line.startswith("- "):
            documented |= set(re.findall(r"`(\w+)`", line.partition(":")[0]))
    assert documented == set(open_florence.__all__)


def test_every_public_name_resolves() -> None:
    for name in open_florence.__all__:
        assert getattr(open_florence, name) is not None
        assert name in dir(open_florence)
    assert open_florence.__version__.count(".") == 2
    assert not hasattr(open_florence, "nonsense")


def test_importing_the_package_imports_nothing_slow() -> None:
    code = "import sys, open_florence; print(*{'torch', 'numpy', 'PIL', 'tokenizers', 'rich'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("set_before", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_wait_without_spinning_unless_told_to(set_before: dict[str, str], policy: str) -> None:
    code = "import os, open_florence; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | set_before
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == policy


def test_what_needs_no_torch_does_not_import_it() -> None:
    code = (
        "import sys, open_florence, open_florence.annotate, open_florence.cli;"
        "open_florence.TASKS, open_florence.read, open_florence.write; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
