"""Hours of the paper's whole Table I on this GPU, projected from measured steps (`benchmarks/table1.py`).

python benchmarks/gpu/2_table1.py --out DIR --precision bf16
"""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "src")]

from table1 import main  # noqa: E402

if __name__ == "__main__":
    main()
