"""What has a language model learnt beyond counting words? Its nats a text beside those of counts on train.

    words     p(x_l = k) = (n_k + 1/2) / (n + K/2),   n_k how often k occurs                                    (1)
    pairs     p(x_l = k | x_l-1 = j) = (n_jk + 1/2) / (n_j + K/2),   the start of a text is a j, too            (2)

K numbers of words, the end 0 among them. Of the text `captions` the density is known: its mean, the entropy, is what no
model gets below (genmini/data/captions_density.py). Then samples: how many are sentences of the grammar, where the text
is that of `captions`, and how many are texts of train. A model that copies has more of these than unseen texts do.
"""

import torch

from genmini import plots
from genmini.data import captions, captions_density, shapes_captions
from genmini.means import mean_and_error
from genmini.studies._study import Study

N = 1000  # samples


def pairs(x, K):
    """Texts (N, L) -> x_l-1, K for the start, and x_l, both up to the end, and the text that each is of"""
    x = x.long()
    before = torch.cat([torch.full_like(x[:, :1], K), x[:, :-1]], 1)
    counts = torch.cat([torch.ones_like(x[:, :1]), x[:, :-1]], 1) != 0  # up to the end
    return before[counts], x[counts], counts.nonzero()[:, 0]


def counted(train, test, K):
    """-> {what was counted in train: -log p of each of the texts test, (N,) float64}"""
    j, k, _ = pairs(train, K)
    n = torch.zeros(K + 1, K, dtype=torch.float64)
    n.index_put_((j, k), torch.ones(len(j), dtype=torch.float64), accumulate=True)
    j, k, text = pairs(test, K)
    log_p = {"counts of words": ((n.sum(0)[k] + 0.5) / (n.sum() + K / 2)).log(),  # log of (1)
             "counts of pairs of words": ((n[j, k] + 0.5) / (n.sum(1)[j] + K / 2)).log()}  # log of (2)
    return {name: -torch.zeros(len(test), dtype=torch.float64).index_add_(0, text, each)
            for name, each in log_p.items()}


def grammatical(text):
    try:
        shapes_captions.parse(text)
    except ValueError:
        return False
    return True


def study(run, path):
    train, test, model = run.split("train"), run.split("test"), run.model
    nats = counted(train.x, test.x, test.levels) | {model.title: run.figures(test.x, test.y)["nll"].double()}
    if test.words == captions.WORDS and test.name == "captions":
        texts = test.words.decode(test.x)
        nats["their own density"] = -torch.tensor([captions_density.log_prob(text) for text in texts])
    words = (test.x != 0).sum(1)
    figure, ((panel,),) = plots.new_figure(1, 1, 6.0, 4.0)
    for (name, each), mark in zip(nats.items(), ".x+1", strict=False):
        panel.scatter(words, each, s=12, marker=mark, linewidths=0.8, label=f"{name}, {each.mean():.2f} on average")
    panel.set(xlabel=f"words of a text ({test.split})", ylabel="nats")
    panel.legend(frameon=False)
    plots.save(figure, path)
    return "; ".join([_mean(nats, model.title), *_of_samples(run, train, test, words)])


def _mean(nats, title):
    mean, error = mean_and_error(nats[title])
    beside = ", ".join(f"{each.mean():.2f} by {name}" for name, each in nats.items() if name != title)
    return f"{mean:.2f} +- {error:.2f} nats a text, {beside}"


def _of_samples(run, train, test, words):
    torch.manual_seed(run.seed)
    x = run.model.sample(N).cpu()
    seen = {bytes(row) for row in train.x.to(torch.int32).numpy()}
    among = lambda x: sum(bytes(row) in seen for row in x.to(torch.int32).numpy()) / len(x)
    if test.words and test.words.vocabulary == shapes_captions.VOCABULARY:
        share = sum(map(grammatical, test.words.decode(x))) / N
        yield f"{share:.1%} of {N} samples are of the grammar"
    yield f"{among(x):.1%} of them are texts of train, of unseen texts {among(test.x):.1%}"
    yield f"words of a sample {(x != 0).sum(1).double().mean():.2f}, of a text {words.double().mean():.2f}"


STUDY = Study(study, needs=("log_prob", "sample"), of_text=True)
