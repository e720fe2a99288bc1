"""The mark that runs a test on every kind of pair."""

import pytest
from pairs import PAIRS

every_pair = pytest.mark.parametrize("kind", PAIRS)
