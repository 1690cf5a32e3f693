"""The experiments of arXiv:2502.16012 as one study of independent cells, on any networks and data set."""

from segpatch.studies.paper.plan import PARTS, PaperPlan
from segpatch.studies.paper.released import as_released
from segpatch.studies.paper.run import run_paper

__all__ = ["PARTS", "PaperPlan", "as_released", "run_paper"]
