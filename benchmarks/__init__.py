"""Benchmarks; they import what they share (``_peers``, ``_data``) by its plain name, as scripts and under pytest."""

import sys
from pathlib import Path

_FOLDER = str(Path(__file__).parent)
if _FOLDER not in sys.path:
    sys.path.insert(0, _FOLDER)
