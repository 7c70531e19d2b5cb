"""Every measured number of the recipe, with its reason.

"Rows" are training rows, and "columns" are those of x. Nats are per row unless stated otherwise.
"""

from __future__ import annotations

from typing import Any

from cnf.training.penalties import Regularizers

# Architecture: more data support a wider field and higher initial frequencies; small tables overfit
# with both.
FEW_ROWS_FIELD = 2_000  # with fewer rows: the smallest field and the lowest frequency
PLANE_COLUMNS = 2  # up to here, fine structure needs many frequencies in the first layer
PLANE_HIDDEN = (64, 64)  # the second layer dominates the cost of a training step
MANY_ROWS_PLANE, MANY_ROWS_PLANE_HIDDEN = 50_000, (96, 64)
TABLE_HIDDEN = (128, 128)  # narrower loses accuracy, wider loses training steps
MANY_ROWS_TABLE, MANY_COLUMNS_TABLE, MANY_ROWS_TABLE_HIDDEN = 20_000, 6, (192, 192)
TYPED_WIDTH = 128  # largest width for typed tables: a wider one gains less than its steps cost
PLANE_FREQUENCY, PLANE_FREQUENCY_FEW_ROWS = 5.0, 3.0  # planar data have finer structure
MODERATE_ROWS, TABLE_FREQUENCY, TABLE_FREQUENCY_FEW_ROWS = 5_000, 3.0, 1.0
TYPED_FREQUENCY = 3.0  # highest frequency for typed tables

# Up to this number of columns, optimal transport pairs rows well and straightens paths at little
# cost, and mixtures were measured to be better bases than a normal density.
FEW_COLUMNS = 3

# Budget.
STEPS_A_ROW, FEWEST_FIT_STEPS, MOST_FIT_STEPS = 1 / 4, 2_000, 6_000  # small tables: more epochs
FEWEST_STEPS_IN_TIME = 50  # the user is warned if the given seconds allow fewer steps
TRAINING_SHARE = 0.88  # of the seconds; the rest is for mixtures, calibration and the last score
# Fraction of the seconds for calibration, and the fewest rows for it. Their error bounds are rough,
# but are available soon.
CALIBRATION_SHARE, FEWEST_CALIBRATION_ROWS = 0.05, 64
# Fractions of the budget for likelihood. One of its steps costs as much as ten of flow matching and
# improves the field more. The fraction of the seconds is larger if rows are too many to overfit.
LIKELIHOOD_SHARE_OF_STEPS = 0.1
LIKELIHOOD_SHARE_OF_SECONDS, LIKELIHOOD_SHARE_OF_SECONDS_MANY_ROWS = 0.7, 0.8
MANY_ROWS_BUDGET = 20_000
# In less time, no field reaches the likelihood that a mixture has at once, and training from the
# mixture gains less than enlarging it. The flow then stays a mixture, which takes most of the seconds.
SHORT_SECONDS, SHORT_MIXTURE_SHARE = 10 * TRAINING_SHARE, 0.75
# Growth stops at the first mixture with more components than this that gains nothing. A smaller one
# may have been split along an axis that separates no clusters, so that the next may still gain.
SETTLED_COMPONENTS = 16

# With less time, choices are quick. A mixture, which will probably beat the flow, is fitted before
# training in this fraction of the seconds.
HASTY_SECONDS, HASTY_MIXTURE_SHARE = 30 * TRAINING_SHARE, 0.3

# Flow matching: a step is cheap, so we take many small ones.
MATCHING: dict[str, Any] = {
    "batch": 1024,
    "learning_rate": 2e-3,
    "ema": 0.999,
    "validations": 6,
    "optimizer": "adam",
}
MATCHING_TIMES = 64  # distinct times in a batch: the gates are computed once per time
COUPLING_BLOCK = 64  # rows per optimal-transport problem, for few columns

# Likelihood: a step is expensive, so we take few large ones.
LIKELIHOOD: dict[str, Any] = {
    "learning_rate": 1e-2,
    "ema": 0.99,
    "validations": 10,
    "optimizer": "muon",
}
LIKELIHOOD_BATCH, LIKELIHOOD_BATCH_FEW_COLUMNS = 256, 512
SOLVER_STEPS = 12  # of the initial training grid; a controller adapts it afterwards
ERROR_WEIGHT = 10.0  # initial weight of the solver error; it is adapted as well
PENALTIES = Regularizers(transport=0.4)  # straight paths are cheap to solve
NFE_BUDGET = 40  # evaluations per row
# Fewest training steps per validation: in a small fit a validation costs as much as seven steps.
STEPS_A_VALIDATION = 8

# Fits from one table to another.
SOURCE_SHARE = 1 / 3  # of the budget, for the density of the source
SOURCE_TOLERANCE = 1e-4  # nats: this error adds to that of the flow that starts from the source
SOURCE_DRAWS = 50_000  # draws from a source that is given as a flow
# Rows per optimal-transport problem, and the number of pairs, which are made before the first step.
# A problem costs as much as ten training steps, so that pairing anew at each step would be too slow.
SOURCE_COUPLING_BLOCK, SOURCE_PAIRS = 256, 16_384
# Fraction of the seconds for likelihood: with these pairs, a minute of flow matching gains more.
SOURCE_LIKELIHOOD_SHARE = 0.3
SOURCE_KINETIC = 1e-3  # weight of ∫ |v|² dt; a weight λ shortens a shift by 2 λ

# Fits through snapshots: the number of chains of rows, which are made once, and the weight of
# ∫ |v|² dt. A larger weight distorts the densities. An additional penalty on the acceleration made
# the densities between snapshots worse.
SNAPSHOT_CHAINS, SNAPSHOT_BLOCK = 4_096, 256
SNAPSHOT_KINETIC = 1e-3
# Initial frequency for snapshots of few rows. With a higher one, the flow overfits each snapshot and
# has spurious motion between them.
SNAPSHOT_FREQUENCY = 1.0
# With growth: the weights of |∇g|² in flow matching and in likelihood, and the distance in model
# coordinates beyond which mass is created and removed instead of moved. With smaller values, growth
# replaces motion as well.
SNAPSHOT_SLOPES, SNAPSHOT_REACH = (0.1, 2e-2), 1.25
# Nats that a field which ignores the known velocities loses in the likelihood phase.
SNAPSHOT_VELOCITIES = 1.0

# Optimization.
WEIGHT_DECAY_ROWS, MOST_WEIGHT_DECAY = 1_500, 0.3  # more decay for few rows, which overfit
CLIP_NORM = 5.0
FIT_PATIENCE = 10  # equals the validations of a phase, which is best at its end
FIT_TOLERANCE = 1e-3  # nats; bounds the solver error of the finished flow

# Choice of the transform: two mixtures are fitted in the coordinates of each. A coarse mixture gains
# from normal marginals even if the transform bends straight structure. The change of the gain with a
# finer mixture predicts what a flow will gain.
TRANSFORM_ROWS = 2_000  # fewer rows do not determine the shape of a column
TRANSFORM_GAIN = 0.05  # nats by which a richer transform must beat whitening
TRANSFORM_COMPONENTS, HASTY_TRANSFORM_COMPONENTS = (10, 40), (8, 16)
TRANSFORM_ITERATIONS, TRANSFORM_SAMPLE, TRANSFORM_VARIANCE = 20, 10_000, 1e-4

# Pilot fits choose between transforms if the budget is large compared with two of them.
PILOT_FEWEST_STEPS, PILOT_FEWEST_SECONDS = 4_000, 100.0
# Their length is in steps and not in seconds, so that a resumed fit makes the same choice.
PILOT_MATCHING_STEPS, PILOT_LIKELIHOOD_STEPS = 600, 60
PILOT_MATCHING_EMA, PILOT_LIKELIHOOD_EMA = 0.99, 0.9  # a short fit has few weights to average

# Choice of the base.
BASE_ROWS, BASE_VALID_ROWS = 2_000, 40  # fewer rows do not determine the shape of a density
BASE_GAIN = 0.05  # nats by which a mixture must beat the other bases
BASE_ERRORS = 2.0  # standard errors by which the gain must exceed zero
BASE_COMPONENTS, BASE_WIDTH = 32, 1.5  # with more or narrower ones, the flow has gaps to fill
BASE_ITERATIONS = 20
STUDENT_DF = (3.0, 6.0)
STUDENT_GAIN = 0.1  # nats per column: independent columns change more than the tails

# Bases of angles and of points on a sphere: the held-out likelihood chooses the component count.
PERIODIC_ROWS, PERIODIC_MOST_ROWS = 500, 10_000
PERIODIC_COMPONENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PERIODIC_ROWS_A_COMPONENT = 5
PERIODIC_CLOSE = 0.01  # nats that doubling the components must gain, since more cost time
PERIODIC_WIDTHS = (1.2, 1.5)  # factors on the fitted width of a component, as BASE_WIDTH
PERIODIC_LEAST_SPREAD = 1e-3  # radians

# Kernels on a sphere that a flow has to beat: events recur at the same places and lie along lines.
KERNEL_NEIGHBORS, KERNEL_SHARES = (3, 5, 8, 12, 20, 30), (0.5, 0.7, 1.0)
KERNEL_LEAST_SPREAD = 1e-4  # radians, 0.6 km on the earth: a usual rounding of coordinates

# Mixtures that a flow has to beat, in model coordinates. The small ones show how the likelihood
# grows with the components. The large one is fitted if the extrapolation beats the flow.
SMALL_COMPONENTS, LARGE_COMPONENTS = (2, 5, 10, 40), 160
MIN_GAIN = 0.1  # nats; a smaller gain does not justify replacing the flow
MIXTURE_ROWS, MIXTURE_ROWS_A_COMPONENT, MIXTURE_ITERATIONS = 40_000, 25, 30
# Fractions of the seconds for a stack on few rows and for a grown mixture. A tenth of 50 seconds
# affords as large a mixture as HASTY_MIXTURE_SHARE of 15 seconds.
MIXTURE_SHARE, GROWN_SHARE = 0.05, 0.1
STEPS_A_COMPONENT = 20  # training steps per component: a short fit competes with small mixtures

# Stacking of mixtures by cross-validation, for few rows, in units of the columns' deviations.
STACKING_ROWS = 2_000  # from here on, the held-out rows suffice to choose
# A shorter fit does not justify a cross-validation. On few rows, the flow is validated after this
# many steps and after half of them; if it is behind the stack and gets worse, it overfits.
STACKING_STEPS = 500
STACKING_COMPONENTS, STACKING_SHAPES = (1, 2, 3, 5, 8, 12), ("full", "diag")
STACKING_FOLDS, STACKING_STARTS = 5, 2
STACKING_ROWS_A_COMPONENT = 5
STACKING_VARIANCE = 1e-4
MOST_REPEATS = 4  # average number of repetitions of a row, if weights differ
SHORT_STACK_SHARE = 0.5  # of a budget of a few seconds; longer budgets use MIXTURE_SHARE
STACKING_ROUNDS, SMALLEST_SHARE = 200, 0.01  # a mixture with a smaller stacking weight is dropped
STACKING_ERRORS = 2.0  # standard errors by which a flow must lead: held-out rows chose its weights

# Distribution over the discrete states of typed tables.
DISCRETE: dict[str, Any] = {"learning_rate": 3e-3, "weight_decay": 1e-3}
DISCRETE_BATCH, DISCRETE_VALIDATIONS, DISCRETE_PATIENCE, DISCRETE_VALID_ROWS = 512, 20, 6, 4096

# Typed tables: the budget of their parts.
DISCRETE_SHARE, IMPUTER_SHARE = 0.1, 1 / 3  # of the seconds, for the states and the imputer
DISCRETE_MOST_STEPS = 2_000
# Fractions of the seconds: for the transforms of the columns, for transforming the training rows and
# the validation rows, for measuring the error of one point per cell, and for each of two last scores.
MAPS_SHARE, COPIES_SHARE, JUDGES_SHARE = 0.1, 0.05, 0.01
CELLS_SHARE, LAST_SCORE_SHARE = 0.02, 0.03
FEWEST_MAPPED_ROWS, FEWEST_MEASURED_ROWS = 64, 16  # the rows of the first timing
# Seconds of the transforms for a pattern of missing cells: a constant, and a factor of columns³.
PATTERN_SECONDS = 2e-4, 5e-9
# With far fewer steps than for a plain table, boosted trees hardly distinguish samples from real
# rows. The imputer takes the same number of steps again.
TYPED_FEWEST_STEPS, TYPED_MOST_STEPS, TYPED_ROWS_A_STEP = 1_500, 3_000, 20
TYPED_LIKELIHOOD_SHARE = 0.03  # of the steps
TYPED_TOLERANCE = 5e-3  # nats: smaller than the quadrature error of integer cells
# Each copy of the rows dequantizes integer cells anew; copies are made up to this number of rows.
DEQUANTIZED_ROWS, DEQUANTIZED_MOST_COPIES = 100_000, 20
# Numbers of validation rows. A cell may need solves at many points, so that the time is limited.
TYPED_JUDGED_ROWS, TYPED_FEWEST_JUDGED_ROWS = 1_000, 8
# Small typed tables: Gaussians given the states. A category of up to FEW_ROWS_GROUPS levels may have
# a covariance for each, shrunk to the shared one with so many pseudo-rows per column. Mixtures model
# the residuals.
FEW_ROWS_SHARE = 0.1  # of the seconds
FEW_ROWS_GROUPS, FEW_ROWS_PRIORS, FEW_ROWS_COMPONENTS = 4, (0.5, 4.0), (2, 3, 5)
# Fraction of the rows in which some columns are neither known nor asked, so that marginals are
# learned too.
IMPUTER_LEFT_OUT = 1 / 3
# Training and validation rows of the imputer. Each row has its own set of known cells, which has to
# be solved by itself.
IMPUTER_ROWS, IMPUTER_MOST_COPIES, IMPUTER_JUDGED_ROWS = 100_000, 20, 256
IMPUTER_COPIES_SHARE = 0.25  # of its seconds, for transforming the rows
# Forests that find donors of missing cells: their fraction of the imputer's seconds, and the largest
# number of rows and of rows times squared columns, which determines the cost. Then the number of
# trees, the fewest distinct rows in a leaf, and the fraction of the columns that a split considers.
# Fewer trees and rows make draws overconfident. A column with more levels than DONOR_LEVELS is
# predicted through random codes of that length.
DONOR_SHARE, DONOR_ROWS, DONOR_WORK = 0.25, 50_000, 5_000_000
DONOR_TREES, DONOR_LEAF, DONOR_FEATURES, DONOR_LEVELS = 10, 8, 0.75, 16

# Conditional network of any columns given any others: its fraction of the seconds (a quarter of the
# joint density's), or the steps of equal cost, with likelihood steps counted ten times; its training
# rows, each copy of which has other columns; and its validation rows.
SUBSET_SHARE, SUBSET_STEPS_SHARE = 0.2, 0.4
SUBSET_ROWS, SUBSET_MOST_COPIES, SUBSET_JUDGED_ROWS = 50_000, 20, 256
# Fractions of its seconds: for its initial mixtures, for conditioning rows, and for its grid.
SUBSET_MIXTURES_SHARE, SUBSET_ROWS_SHARE, SUBSET_GRID_SHARE = 0.3, 0.1, 0.1

# Tables larger than memory. Peak bytes per cell of a fit, measured on a million plain and half a
# million typed rows. A quarter of the memory holds the sample that determines every choice, a
# quarter the pool of training rows, and a quarter the chunk that is being added to the pool.
PLAIN_CELL_BYTES, TYPED_CELL_BYTES = 100, 450
POOLED_NUMBER_BYTES = 8  # ordering a part of the pool takes as many again
STREAM_SAMPLE_ROWS, STREAM_FEWEST_ROWS = 200_000, 5_000  # larger changes no choice
STREAM_SAMPLE_GROUPS = 256  # row groups of the sample: with fewer, sorted rows leave gaps
STREAM_POOL_PARTS = 16  # parts of the pool; each batch has rows of all of them
STREAM_CHUNK_ROWS = 65_536
