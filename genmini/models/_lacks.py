"""What a model does not do, in words: `Model.cannot` says it of a method, or of an argument of `sample`, that it lacks.

    used by: genmini/models/_model.py    test: tests/models/test_model.py
"""

LACKS = {  # method, or argument of `sample` -> what a model without it does not do
    "log_prob": "gives no likelihood",
    "log_prob_each": "gives no likelihood of the single numbers of an example",
    "sample": "draws no samples",
    "encode": "has no latent code",
    "q": "has no distribution of codes for an example",
    "encode_text": "gives texts no vectors beside those of images",
    "decode": "has no latent code",
    "reconstruct": "has no latent code",
    "translate": "does not translate images of one set into another",
    "d": "has no discriminator",
    "on_the_line": "estimates no divergence of two densities by a discriminator",
    "classify": "tells no classes of images apart",
    "codes": "has no codebook",
    "decode_codes": "has no codebook",
    "mixture": "takes one class",
    "correlations": "follows no attributes",
    "process": "does not turn images into noise and back",
    "measure": "follows no attributes",
    "forward": "carries no examples to noise",
    "inverse": "carries no noise to examples",
    "forecast": "forecasts no series",
    "autocovariance": "has no autocovariance of its own",
    "restore": "is given no part of an image",
    "inpaint": "does not draw what a mask hides, wherever it lies",
    "log_hidden": "gives no likelihood of what a mask hides",
    "variations": "draws no other images of a code",
    "interpolate": "draws no images of codes between two",
    "fit": "is trained step by step",
    "begin_at_marginals": "has no bias for each level of each pixel",
    "mean": "draws its pixels directly, so there is no mean image behind them",
    "begin": "does not go on from the beginning of a text",
    "known": "keeps no known pixels, so it cannot complete an image",
    "how": "has one way to draw",
    "T": "draws examples of one length",
    "eta": "has no sampler that draws a share of noise",
    "steps": "draws in a number of steps of its own",
    "guidance": "is not guided towards a class",
    "threshold": "is not guided towards a class",  # which can lead estimates out of the range of data
    "classifier": "is not guided by a classifier",
    "temperature": "draws its noise at one temperature",
    "film": "does not draw step by step from noise",
}
# arguments that some `sample`s take
SAMPLING = ("mean", "begin", "known", "how", "T", "eta", "steps", "guidance", "threshold", "classifier", "temperature",
            "film")
