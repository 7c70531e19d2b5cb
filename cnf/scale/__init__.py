"""Beyond one process: a scorer that travels to where the data are, and folders of files.

batches, scorer     `Scorer`: tables of any library in, the same with scores out
engines             a function for each of many files: processes of this machine, Ray, Dask
summary, folders    what `cnf score` says of rows; one file of scores for each file of a folder
"""

from cnf.scale.folders import ScoredFolder
from cnf.scale.scorer import ScoreOptions, Scorer
from cnf.scale.summary import ScoreSummary, write_scores

__all__ = ["ScoreOptions", "ScoreSummary", "ScoredFolder", "Scorer", "write_scores"]
