"""Lets the tests here, and the processes that they start, import the fakes beside them."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
