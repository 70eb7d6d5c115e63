"""Statistics of whole tensors or models, gathered tile by tile: monoids whose result no tiling can change."""

from cuvee.folds.base import Fold, Known, Statistic, Tile
from cuvee.folds.extremes import Extremes
from cuvee.folds.gram import Gram
from cuvee.folds.quantiles import Ranked
from cuvee.folds.ranks import RowRanks
from cuvee.folds.sums import Sum
from cuvee.folds.topk import TopK

__all__ = ["Extremes", "Fold", "Gram", "Known", "Ranked", "RowRanks", "Statistic", "Sum", "Tile", "TopK"]
