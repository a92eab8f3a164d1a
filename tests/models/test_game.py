"""Tests of training by the updates that a model yields: a game of two players is played move by move, judged and
resumed; and what other updates and stages must be."""

import copy

import pytest
import torch
from check_models import resumes, small
from torch import nn

from genmini import data, models
from genmini.models._model import Batch, Model
from genmini.train import fit, judge

TRAIN, VALID = (data.load("digits-threshold", split) for split in ("train", "valid"))


class Game(Model):
    """Two numbers: the critic descends (c - g)^2 twice a step, then g descends (g + c)^2 and dropout's noise."""

    def __init__(self, shape, levels=2, k=2):
        super().__init__(shape, levels)
        self.k, self.c, self.g = k, nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(-2.0))
        self.shared = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("turns", torch.tensor(0))
        self.seen = []

    def loss(self, x, y=None):
        return (self.c - self.g).square().expand(len(x))

    def updates(self, batch):
        for _ in range(self.k):
            self.turns += 1
            yield "critic", (self.c * self.shared - self.g).square() + batch.x.float().mean(), [self.c, self.shared]
            self.seen.append(("critic", self.c.item(), self.g.item(), self.c.grad, self.g.grad))
        noise = torch.rand(())
        yield "generator", (self.g + self.c * self.shared).square() * (0.5 + noise), iter([self.g, self.shared])
        self.seen.append(("generator", self.c.item(), self.g.item(), self.c.grad, self.g.grad))


LOOP = dict(steps=12, every=4, batch=8, rate=0.1, betas=(0.5, 0.99), clip=0.5, decay=0.1, progress=False)


def by_hand(steps, seed=0):
    """The same game, written out with PyTorch's optimisers."""
    noise = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    game = Game((8, 8))
    players = {"critic": [game.c, game.shared], "generator": [game.g, game.shared]}
    settings = dict(lr=0.1, betas=(0.5, 0.99), weight_decay=0.1)
    adams = {name: torch.optim.AdamW(parameters, fused=True, **settings) for name, parameters in players.items()}
    cosines = {name: torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps) for name, adam in adams.items()}

    def step(name, loss):
        grads = torch.autograd.grad(loss, players[name])
        for parameter, grad in zip(players[name], grads, strict=True):
            parameter.grad = grad
        torch.nn.utils.clip_grad_norm_(players[name], 0.5)
        adams[name].step()

    for _ in range(steps):
        x = TRAIN.x[torch.randint(len(TRAIN), (8,), generator=noise)]
        for _ in range(2):
            step("critic", (game.c * game.shared - game.g).square() + x.float().mean())
        share = 0.5 + torch.rand(())
        step("generator", (game.g + game.c * game.shared).square() * share)  # after the critic's steps
        for cosine in cosines.values():
            cosine.step()
    return game


def test_a_game_is_played_move_by_move():
    """Each loss sees the moves before it, each name has its Adam and clip, the cosine counts steps and not moves."""
    game = Game((8, 8))
    rows = []
    fit(game, TRAIN, VALID, **LOOP | dict(every=12),
        watch=lambda row, model: rows.append(copy.deepcopy(model.state_dict())))
    expected = by_hand(12)
    assert all(torch.equal(rows[0][name], tensor) for name, tensor in expected.named_parameters())
    assert rows[0]["turns"] == 24 and [turn[0] for turn in game.seen[:3]] == ["critic", "critic", "generator"]
    (_, c0, g0, c_grad, g_grad), (_, c1, g1, *_), (_, c2, g2, *_) = game.seen[:3]
    assert c0 != c1 == c2 and g0 == g1 == -2.0 != g2, "each moves in its own turn"
    assert c_grad is not None and g_grad is None, "the other player gets no gradient"


def test_the_losses_of_all_players_stand_in_the_metrics():
    history = fit(Game((8, 8)), TRAIN, VALID, **LOOP)
    assert all(row.keys() == {"step", "train critic", "train generator", "valid", "seconds"} for row in history.rows)


class Judged(Game):
    """Its loss falls, and what unseen data say of it rises: the first weights are the best."""

    def loss(self, x, y=None):
        return super().loss(x) - self.turns

    def valid_loss(self, x, y=None):
        assert not self.training and not torch.is_grad_enabled() and len(x) == len(VALID) and y is None
        return self.turns.item()

    def warning(self, rows):
        return f"{len(rows)} rows, the last of step {rows[-1]['step']}" if len(rows) > 1 else ""


def test_unseen_data_judge_as_the_model_says_and_what_goes_wrong_stands_in_the_metrics(capsys):
    game = Judged((8, 8))
    history = fit(game, TRAIN, VALID, **LOOP | dict(progress=True), measure=lambda model: dict(g=model.g.item()))
    assert [row["valid"] for row in history.rows] == [8, 16, 24] and history.step == 4 and history.valid == 8
    assert game.turns == 8, "the weights of the lowest stay"
    assert [row["g"] for row in history.rows][0] == pytest.approx(game.g.item()) != history.rows[-1]["g"]
    assert [row.get("warning") for row in history.rows] == [None, *(f"{n} rows, the last of step {4 * n}"
                                                                    for n in (2, 3))]
    errors = capsys.readouterr().err
    assert errors.count("warning   step 8: 2 rows, the last of step 8") == 1 and "warning   step 12" not in errors


def test_a_measure_may_judge_in_the_place_of_the_model():
    history = fit(Judged((8, 8)), TRAIN, VALID, **LOOP, measure=lambda model: dict(valid=-model.turns.item(), more=1))
    assert [row["valid"] for row in history.rows] == [-8, -16, -24] and history.step == 12
    assert all(row["more"] == 1 for row in history.rows)


def test_without_another_measure_unseen_data_judge_by_the_mean_loss():
    torch.manual_seed(0)
    model, _ = small("made")
    assert model.valid_loss(VALID.x) == judge(model, VALID.x).mean().item() and model.warning([{}]) == ""


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 1.0), (-0.1, 0.9)])
def test_betas_that_cannot_be_are_refused(betas):
    with pytest.raises(ValueError, match="betas must be (two shares|at least 0 and below 1), got"):
        fit(Game((8, 8)), TRAIN, VALID, **LOOP | dict(betas=betas))


@pytest.mark.parametrize("stop", [2, 4, 7])
def test_a_game_resumes_to_the_same_bits(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(models, "MODELS", (*models.MODELS, "test_game"))
    monkeypatch.setattr(models, "find", lambda name: Game)
    _, _, state = resumes(lambda: Game((8, 8)), TRAIN, VALID, LOOP, stop=stop, folder=tmp_path)
    assert state["descents"].keys() == {"critic", "generator"}
    assert all(part.keys() == {"optimiser", "schedule", "scaler"} for part in state["descents"].values())
    assert [state["descents"][name]["optimiser"]["state"][0]["step"]
            for name in ("critic", "generator")] == [2 * stop, stop]


# ---- other updates, and stages ---------------------------------------------------------------------------------------


def test_updates_that_change_from_step_to_step_are_refused():
    class Late(Game):
        def updates(self, batch):
            self.turns += 1
            if self.turns != 2 or self.missing:
                yield "critic", (self.c - self.g).square(), [self.c] if self.turns < 3 else [self.c, self.shared]
            if self.turns == 2:
                yield "late", self.g.square(), [self.g]

    for missing, words in ((True, "'late' first at a later one"), (False, r"\['critic'\], got \[\]|'late'")):
        game = Late((8, 8))
        game.missing = missing
        with pytest.raises(ValueError, match=words):
            fit(game, TRAIN, VALID, **LOOP)
    game = Game((8, 8))
    game.updates = lambda batch: iter([("critic", game.loss(batch.x).mean(),
                                        [game.c] if game.seen else [game.g])] * (not game.seen.append(1) or 1))
    with pytest.raises(ValueError, match="same parameters for 'critic'"):
        fit(game, TRAIN, VALID, **LOOP)
    game.updates = lambda batch: iter(())
    with pytest.raises(ValueError, match=r"got \[\]"):
        fit(game, TRAIN, VALID, **LOOP)


def test_by_default_there_is_one_update_of_the_mean_loss():
    model, x = small("cvae", classes=10)
    torch.manual_seed(0)
    ((name, loss, parameters),) = model.updates(Batch(x, TRAIN.y[:5]))
    torch.manual_seed(0)
    assert name == "loss" and torch.equal(loss, model.loss(x, y=TRAIN.y[:5]).mean())
    assert list(map(id, parameters)) == list(map(id, model.parameters()))
    assert judge(model, TRAIN.x[:7], TRAIN.y[:7], batch=3).shape == (7,) and not model.training


def test_stages_take_settings_each_and_no_others():
    model, _ = small("vqvae")
    for later in ({}, {"codes": dict(steps=1)}, {"prior": dict(steps=1), "more": dict(steps=1)}):
        with pytest.raises(ValueError, match=r"later takes the settings of the stages \('prior',\)"):
            fit(model, TRAIN, VALID, steps=1, later=later, progress=False)
    with pytest.raises(ValueError, match="later takes the settings"):
        fit(small("nade")[0], TRAIN, VALID, steps=1, later={"prior": dict(steps=1)}, progress=False)
    with pytest.raises(ValueError, match="every must be at least 1"):
        fit(model, TRAIN, VALID, steps=1, later={"prior": dict(steps=1, every=0)}, progress=False)
    with pytest.raises(ValueError, match="steps must be a whole number, at least 1, got None"):
        fit(small("nade")[0], TRAIN, VALID, progress=False)
    with pytest.raises(ValueError, match="method is for models that are solved: NADE is trained step by step"):
        fit(small("nade")[0], TRAIN, VALID, steps=1, method="likelihood", progress=False)


def test_a_finished_training_in_stages_has_nothing_to_resume(tmp_path):
    model, _ = small("vqvae")
    loops = dict(steps=1, every=1, later={"prior": dict(steps=1, every=1)}, run=tmp_path, progress=False)
    fit(model, TRAIN, VALID, **loops)
    with pytest.raises(ValueError, match="at its end: there is nothing to resume"):
        fit(model, TRAIN, VALID, **loops, resume=True)
