"""Kills, stops, cuts off and starves real runs, and counts those that ended as a run without a fault does: `make chaos`.

A row of the table is a fault, with many trials. trials.py has what a row is made of, rows.py lists the rows, and runner.py runs
them. The processes, and the stand-in for Cloud Storage, are started by the helpers of the tests.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # It has programs.py and stand_ins/.
