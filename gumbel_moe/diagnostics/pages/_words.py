"""What the columns of reports are called on a page, and what they are."""

from typing import NamedTuple


class Word(NamedTuple):
    """A heading, and what is under it."""

    heading: str
    meaning: str


COORDINATES = {
    "mean": Word("mean", "of the draws"),
    "exact": Word("exact", "the gradient that the mean should be"),
    "bias": Word("bias", "mean minus exact"),
    "se": Word("standard error", "of the mean, and so of the bias"),
    "z": Word("z-score", "the bias in standard errors, less what rounding may be"),
    "detectable": Word("detectable bias", "would have been found with probability 0.99"),
    "sd": Word("spread of a draw", "standard deviation of one draw"),
    "mcse": Word("standard error by ArviZ", "only of coordinates of which every draw was kept"),
    "ess": Word("effective draws by ArviZ", "as many as there are draws, if these are independent"),
    "r_hat": Word("R-hat by ArviZ", "1 where the chains agree"),
}

ESTIMATORS = {
    "passed": Word("verdict", "passed: no bias found"),
    "max_z": Word("largest z-score", "of a coordinate, in size"),
    "limit": Word("its limit", "what an unbiased estimator stays below"),
    "spread_z": Word("t-score of all", "of a bias spread over all coordinates together"),
    "spread_limit": Word("its limit", "what an unbiased estimator stays below"),
    "bias": Word("bias", "distance of the mean from the exact gradient, the mean's own noise taken out"),
    "relative_bias": Word("over the gradient", "the same over the norm of the exact gradient"),
    "detectable_bias": Word("detectable bias", "in any one coordinate, would have been found with probability 0.99"),
    "relative_detectable_bias": Word("over the gradient", "the same over the norm of the exact gradient"),
    "variance": Word("variance", "of one draw, summed over the coordinates"),
}

VARIANCES = {
    "trace": Word("variance", "of one draw, summed over the coordinates (trace of the covariance)"),
    "relative": Word("variance, over that of {}", "below 1 where fewer draws are needed for the same error"),
    "signal_to_noise": Word("signal to noise", "squared norm of the mean over the variance"),
    "seconds": Word("seconds of a draw", "median; differs from run to run"),
    "trace_x_seconds": Word("variance times seconds", "what the same error costs in time"),
    "relative_per_second": Word("the same, over that of {}", "below 1 where the same error takes less time"),
    "evaluations": Word("evaluations of a draw", "of experts, or of whatever the costs that were given count"),
    "trace_x_evaluations": Word("variance times evaluations", "what the same error costs in evaluations"),
    "relative_per_evaluation": Word("the same, over that of {}", "below 1 where the same error takes fewer"),
    "rank": Word("directions", "how many share the variance, were they equal"),
    "top_share": Word("share of the largest direction", "in the variance"),
    "largest_draw": Word("share of the largest draw", "in the variance; near 1 no interval holds"),
    "not_finite": Word("draws not finite", "NaN or infinite"),
    "bias": ESTIMATORS["bias"],
    "mse": Word("mean squared error", "of one draw: squared bias plus variance"),
    "max_z": ESTIMATORS["max_z"],
    "biased": Word("verdict", "biased, where the bias is beyond chance"),
}

EXPERTS = {
    "p": Word("mean probability", "that the router gives it, over datapoints"),
    "weighted": Word("mean weighted share", "the mean probability, if the weights are right"),
    "sent": Word("datapoints sent", "mean over draws"),
    "load": Word("datapoints handled", "mean over draws"),
    "load_5%": Word("5%", "quantile of the datapoints handled"),
    "load_50%": Word("median", "of the datapoints handled"),
    "load_95%": Word("95%", "quantile of the datapoints handled"),
    "max_z": Word("largest z-score", "of its datapoints' mean weights, in size"),
}

MEMBERSHIPS = {
    "expert": Word("expert", "the most frequent one"),
    "share": Word("share of the draws", "in which it has that expert"),
    "entropy": Word("entropy", "of its membership, in nats; 0 where all draws agree"),
}
