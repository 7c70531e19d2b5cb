"""Every measured number of the recipe, with its reason.

Rows are those to learn from, columns those of x. Nats are per row where nothing else is said.
"""

from __future__ import annotations

from typing import Any

from cnf.training.penalties import Regularizers

# Architecture: more data afford a wider field and higher frequencies at the start; small tables
# overfit with both.
FEW_ROWS_FIELD = 2_000  # below: the smallest field and the lowest frequency
PLANE_COLUMNS = 2  # up to here fine structure takes many waves in the first layer
PLANE_HIDDEN = (64, 64)  # the second layer is what a training step costs
MANY_ROWS_PLANE, MANY_ROWS_PLANE_HIDDEN = 50_000, (96, 64)
TABLE_HIDDEN = (128, 128)  # narrower loses accuracy, wider loses training steps
MANY_ROWS_TABLE, MANY_COLUMNS_TABLE, MANY_ROWS_TABLE_HIDDEN = 20_000, 6, (192, 192)
TYPED_WIDTH = 128  # of typed tables, at most: wider gains less than the steps it costs
PLANE_FREQUENCY, PLANE_FREQUENCY_FEW_ROWS = 5.0, 3.0  # a plane shows finer structure
MODERATE_ROWS, TABLE_FREQUENCY, TABLE_FREQUENCY_FEW_ROWS = 5_000, 3.0, 1.0
TYPED_FREQUENCY = 3.0  # of typed tables, at most

# Up to so many columns, optimal transport pairs rows well and makes paths straight for little, and
# mixtures were found to be better bases than a normal.
FEW_COLUMNS = 3

# Budget.
STEPS_A_ROW, FEWEST_FIT_STEPS, MOST_FIT_STEPS = 1 / 4, 2_000, 6_000  # a few epochs more for few
FEWEST_STEPS_IN_TIME = 50  # after fewer steps in the given seconds, the user is warned
TRAINING_SHARE = 0.88  # of the seconds; the rest is for mixtures, calibration and a last score
# Of the seconds, for calibration, and its rows at least: their bars are rough, but soon there.
CALIBRATION_SHARE, FEWEST_CALIBRATION_ROWS = 0.05, 64
# Parts of the budget for likelihood: one of its steps costs ten of flow matching and brings the
# field further. Of seconds more where rows are too many to overfit.
LIKELIHOOD_SHARE_OF_STEPS = 0.1
LIKELIHOOD_SHARE_OF_SECONDS, LIKELIHOOD_SHARE_OF_SECONDS_MANY_ROWS = 0.7, 0.8
MANY_ROWS_BUDGET = 20_000
# Fewer seconds do not bring a field to where a mixture is at once, and refining the mixture by
# likelihood gains less than a larger one: the flow stays a mixture, fitted for most of the seconds.
SHORT_SECONDS, SHORT_MIXTURE_SHARE = 10 * TRAINING_SHARE, 0.75
# A grown mixture of more components that gains nothing is the last. Of fewer, the next may gain: an
# axis that parts no clusters was split.
SETTLED_COMPONENTS = 16

# With fewer seconds than these, choices are quick, and a mixture, which the flow is likely to be
# behind, takes this share of them before training.
HASTY_SECONDS, HASTY_MIXTURE_SHARE = 30 * TRAINING_SHARE, 0.3

# Flow matching: a step is cheap, so many small ones.
MATCHING: dict[str, Any] = {
    "batch": 1024,
    "learning_rate": 2e-3,
    "ema": 0.999,
    "validations": 6,
    "optimizer": "adam",
}
MATCHING_TIMES = 64  # distinct times of a batch: gates are computed once for each
COUPLING_BLOCK = 64  # rows paired by optimal transport, in few columns

# Likelihood: a step is expensive, so few, and each goes far.
LIKELIHOOD: dict[str, Any] = {
    "learning_rate": 1e-2,
    "ema": 0.99,
    "validations": 10,
    "optimizer": "muon",
}
LIKELIHOOD_BATCH, LIKELIHOOD_BATCH_FEW_COLUMNS = 256, 512
SOLVER_STEPS = 12  # of the grid that likelihood starts with; it is controlled from there on
ERROR_WEIGHT = 10.0  # of the solver's error at the start; likewise
PENALTIES = Regularizers(transport=0.4)  # straight paths are cheap to follow
NFE_BUDGET = 40  # evaluations a row
# Training steps for each validation at least, which takes as long as seven of them in a small fit.
STEPS_A_VALIDATION = 8

# From one table to another.
SOURCE_SHARE = 1 / 3  # of the budget, for the density of the source
SOURCE_TOLERANCE = 1e-4  # nats: its error adds to that of the flow that starts there
SOURCE_DRAWS = 50_000  # of a source that is given as a flow
# Rows that optimal transport assigns among each other, a batch, and pairs made before the first
# step: a block costs ten training steps, so that pairs made anew for each leave time for few.
SOURCE_COUPLING_BLOCK, SOURCE_PAIRS = 256, 16_384
# Of the seconds: paired so, flow matching comes nearer in a minute than likelihood does.
SOURCE_LIKELIHOOD_SHARE = 0.3
SOURCE_KINETIC = 1e-3  # weight of ∫ |v|² dt; one of λ shortens a shift by 2 λ

# Through snapshots: chains of rows, made once, and the weight of ∫ |v|² dt. A larger one bends the
# densities; a penalty on the acceleration too left times between the snapshots further off.
SNAPSHOT_CHAINS, SNAPSHOT_BLOCK = 4_096, 256
SNAPSHOT_KINETIC = 1e-3
# Scale of the frequencies where snapshots have few rows: a higher one fits each of them and wanders
# between.
SNAPSHOT_FREQUENCY = 1.0
# Where mass grows: the weight of |∇g|² in flow matching and in likelihood, and the distance in model
# coordinates beyond which it rather grows and shrinks than moves. A smaller weight or distance has
# growth stand for motion too.
SNAPSHOT_SLOPES, SNAPSHOT_REACH = (0.1, 2e-2), 1.25
# Nats that likelihood loses where it ignores known velocities.
SNAPSHOT_VELOCITIES = 1.0

# Optimization.
WEIGHT_DECAY_ROWS, MOST_WEIGHT_DECAY = 1_500, 0.3  # their quotient with the rows: few overfit soon
CLIP_NORM = 5.0
FIT_PATIENCE = 10  # as many as a phase has validations: it is at its best at its end
FIT_TOLERANCE = 1e-3  # nats, of the finished flow's error bars

# Choice of the transform: two mixtures are fitted in the coordinates of each. A coarse one profits
# from columns that look normal even where the transform bends what was straight; how the gain
# changes with a finer one says what will be left of it for a flow.
TRANSFORM_ROWS = 2_000  # fewer say too little about the shape of a column
TRANSFORM_GAIN = 0.05  # nats that a richer transform must gain over whitening
TRANSFORM_COMPONENTS, HASTY_TRANSFORM_COMPONENTS = (10, 40), (8, 16)
TRANSFORM_ITERATIONS, TRANSFORM_SAMPLE, TRANSFORM_VARIANCE = 20, 10_000, 1e-4

# Pilot fits, which choose between transforms where the budget makes two of them a small part.
PILOT_FEWEST_STEPS, PILOT_FEWEST_SECONDS = 4_000, 100.0
# Steps and not seconds: a fit that goes on after an interruption chooses as it did.
PILOT_MATCHING_STEPS, PILOT_LIKELIHOOD_STEPS = 600, 60
PILOT_MATCHING_EMA, PILOT_LIKELIHOOD_EMA = 0.99, 0.9  # a short fit has little to average

# Choice of the base.
BASE_ROWS, BASE_VALID_ROWS = 2_000, 40  # fewer say too little about the shape of a density
BASE_GAIN = 0.05  # nats that a mixture must gain over the other bases
BASE_ERRORS = 2.0  # standard errors by which it must be sure
BASE_COMPONENTS, BASE_WIDTH = 32, 1.5  # more or narrower: the flow would have to fill gaps
BASE_ITERATIONS = 20
STUDENT_DF = (3.0, 6.0)
STUDENT_GAIN = 0.1  # nats a column: independent heavy columns are another shape, not only tails

# Bases of angles and of points on a sphere: the held-out likelihood chooses the number.
PERIODIC_ROWS, PERIODIC_MOST_ROWS = 500, 10_000
PERIODIC_COMPONENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PERIODIC_ROWS_A_COMPONENT = 5
PERIODIC_CLOSE = 0.01  # nats that twice the components must gain: more cost time
PERIODIC_WIDTHS = (1.2, 1.5)  # of a component, beside that of its rows; as BASE_WIDTH
PERIODIC_LEAST_SPREAD = 1e-3  # radians

# Kernels on a sphere that a flow has to beat: events repeat at places and lie along lines.
KERNEL_NEIGHBORS, KERNEL_SHARES = (3, 5, 8, 12, 20, 30), (0.5, 0.7, 1.0)
KERNEL_LEAST_SPREAD = 1e-4  # radians, 0.6 km on the earth: about what coordinates are rounded to

# Mixtures that a flow has to beat, in model coordinates. Small ones show how fast the likelihood
# rises with the components; the large one is fitted where that promises more than the flow has.
SMALL_COMPONENTS, LARGE_COMPONENTS = (2, 5, 10, 40), 160
MIN_GAIN = 0.1  # nats; less is no reason to give up a flow
MIXTURE_ROWS, MIXTURE_ROWS_A_COMPONENT, MIXTURE_ITERATIONS = 40_000, 25, 30
# Of the seconds, for a stack of few rows and for a grown mixture: of 50, as large a one as of 15.
MIXTURE_SHARE, GROWN_SHARE = 0.05, 0.1
STEPS_A_COMPONENT = 20  # of the fit: a short one is compared with small mixtures only

# Stacking of mixtures by cross-validation, for few rows, in units of the columns' deviations.
STACKING_ROWS = 2_000  # from here on held-out rows choose by themselves
# A shorter fit does not justify a cross-validation. After so many steps, and after half of them, a
# flow of few rows is validated: one that is behind the stack and falls back has begun to overfit.
STACKING_STEPS = 500
STACKING_COMPONENTS, STACKING_SHAPES = (1, 2, 3, 5, 8, 12), ("full", "diag")
STACKING_FOLDS, STACKING_STARTS = 5, 2
STACKING_ROWS_A_COMPONENT = 5
STACKING_VARIANCE = 1e-4
MOST_REPEATS = 4  # of a row on average, where weights differ
SHORT_STACK_SHARE = 0.5  # of a few seconds; of more, as other mixtures
STACKING_ROUNDS, SMALLEST_SHARE = 200, 0.01  # of the shares; less drops a mixture
STACKING_ERRORS = 2.0  # standard errors by which a flow must lead: held-out rows chose its weights

# Distribution over the discrete states of typed tables.
DISCRETE: dict[str, Any] = {"learning_rate": 3e-3, "weight_decay": 1e-3}
DISCRETE_BATCH, DISCRETE_VALIDATIONS, DISCRETE_PATIENCE, DISCRETE_VALID_ROWS = 512, 20, 6, 4096

# Typed tables: the budget of their parts.
DISCRETE_SHARE, IMPUTER_SHARE = 0.1, 1 / 3  # of the seconds, for the states and for what imputes
DISCRETE_MOST_STEPS = 2_000
# Of the seconds, for the maps of the columns, for mapping the rows to learn from and those that judge,
# for the error of a single point in a cell, and for each of two last scores.
MAPS_SHARE, COPIES_SHARE, JUDGES_SHARE = 0.1, 0.05, 0.01
CELLS_SHARE, LAST_SCORE_SHARE = 0.02, 0.03
FEWEST_MAPPED_ROWS, FEWEST_MEASURED_ROWS = 64, 16  # the first to be timed
# Seconds that maps take for a pattern of missing cells: constant, and by the cube of the columns.
PATTERN_SECONDS = 2e-4, 5e-9
# Far fewer steps than a plain table takes bring samples that boosted trees hardly know from real
# rows; the imputer takes as many again.
TYPED_FEWEST_STEPS, TYPED_MOST_STEPS, TYPED_ROWS_A_STEP = 1_500, 3_000, 20
TYPED_LIKELIHOOD_SHARE = 0.03  # of the steps
TYPED_TOLERANCE = 5e-3  # nats: less than the quadrature of integer cells may err by
# Integer cells are dequantized anew in each copy of the rows, in enough copies for so many rows.
DEQUANTIZED_ROWS, DEQUANTIZED_MOST_COPIES = 100_000, 20
# A cell may cost solves at many points: of rows that are judged, seconds leave these at least.
TYPED_JUDGED_ROWS, TYPED_FEWEST_JUDGED_ROWS = 1_000, 8
# Few rows of typed tables: Gaussians given the states, with covariances of up to so many categories,
# each pulled to the shared one by so many rows a column; mixtures of what they leave.
FEW_ROWS_SHARE = 0.1  # of the seconds
FEW_ROWS_GROUPS, FEW_ROWS_PRIORS, FEW_ROWS_COMPONENTS = 4, (0.5, 4.0), (2, 3, 5)
# Rows, each with another set of known cells, that the imputer learns from, and rows that judge it,
# each of which has a pattern of its own to be solved.
# Rows of which some columns are neither known nor asked, so that marginals are learned too.
IMPUTER_LEFT_OUT = 1 / 3
IMPUTER_ROWS, IMPUTER_MOST_COPIES, IMPUTER_JUDGED_ROWS = 100_000, 20, 256
IMPUTER_COPIES_SHARE = 0.25  # of its seconds, for mapping the rows
# Forests that find donors of missing cells: of the imputer's seconds; rows, and rows times squared
# columns, which they cost, at most; trees, distinct rows of a leaf at least, and of the columns those
# that a split may choose among. Fewer trees and rows make draws too sure. More levels than these are
# predicted by as many random numbers.
DONOR_SHARE, DONOR_ROWS, DONOR_WORK = 0.25, 50_000, 5_000_000
DONOR_TREES, DONOR_LEAF, DONOR_FEATURES, DONOR_LEVELS = 10, 8, 0.75, 16

# Conditional network of any columns given any others: its share of the seconds (a quarter of what
# the joint density has), or as many steps as cost as much, likelihood steps counted ten times; rows
# with other columns in each copy; rows that judge it.
SUBSET_SHARE, SUBSET_STEPS_SHARE = 0.2, 0.4
SUBSET_ROWS, SUBSET_MOST_COPIES, SUBSET_JUDGED_ROWS = 50_000, 20, 256
# Of its seconds, for the mixtures that it starts from, for conditioning rows, and for its grid.
SUBSET_MIXTURES_SHARE, SUBSET_ROWS_SHARE, SUBSET_GRID_SHARE = 0.3, 0.1, 0.1

# Tables of more rows than memory. Bytes a cell that a fit takes at its peak, measured for a million
# plain and half a million typed rows: a quarter of the memory holds a sample that settles every
# choice, a quarter the pool of training rows, and a quarter a chunk on its way into it.
PLAIN_CELL_BYTES, TYPED_CELL_BYTES = 100, 450
POOLED_NUMBER_BYTES = 8  # and as many for what is made of a part while it is put in order
STREAM_SAMPLE_ROWS, STREAM_FEWEST_ROWS = 200_000, 5_000  # more change no choice, fewer spoil them
STREAM_SAMPLE_GROUPS = 256  # that the sample is of: sorted rows leave gaps between fewer
STREAM_POOL_PARTS = 16  # of the pool: each batch has rows of all
STREAM_CHUNK_ROWS = 65_536
