"""Settings every test shares: one thread (results do not depend on the machine), and the folder of real data."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("calm")  # a busy machine is no failure

DATA = Path(os.environ.get("OPEN_FLORENCE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real data that is not part of the project; a test that needs it is skipped, saying so, where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA} (set OPEN_FLORENCE_TEST_DATA)")
    return DATA
