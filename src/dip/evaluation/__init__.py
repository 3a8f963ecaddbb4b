"""FID, sFID, Inception score, precision and recall with the ADM protocol."""

from dip.evaluation.frechet import RunningStatistics, Statistics, frechet_distance
from dip.evaluation.inception_score import inception_score
from dip.evaluation.manifold import precision_recall

__all__ = ["RunningStatistics", "Statistics", "frechet_distance", "inception_score", "precision_recall"]
