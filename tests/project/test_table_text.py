"""Tests of the table of texts and images: one training gives the rows of all captions and guidances, the figures are
those of the studies, diversity has known answers, and docs/results.md shows rows and picture."""

import math

import pytest
import table_text
import torch
from PIL import Image
from trained import train

from genmini import checkpoint, data, metrics, models
from genmini.data import shapes_captions
from genmini.models.clip import nearer
from genmini.studies.caption import KINDS, captions_of, scenes_of

QUICK = dict(steps=2, every=2, batch=8)
SMALL = dict(directions=6, vector=8, width=8, draws=2)
TEXT = dict(text_width=8, text_heads=2)


@pytest.fixture
def table(tmp_path, monkeypatch, only_these):
    """The table with quick recipes, few captions, and results and a document of the test's own."""
    stages = dict.fromkeys(("train", "base", "twice", "again"), QUICK)
    imagen = lambda blocks: dict(data="shapes", scenes=400, model=SMALL | TEXT | dict(text_blocks=blocks), **stages)
    clip = dict(data="shapes", scenes=400, model=dict(width=4, text_width=8, blocks=1, latent=4), train=QUICK)
    only_these({"imagen": {"shapes": imagen(1), "encoder-m": imagen(2), "encoder-s": imagen(1)},
                "clip": {"shapes": clip}, "made": {"digits": dict(data="digits", model={}, train=QUICK)}})
    for name, value in dict(N=6, FEW=4, AT_ONCE=3, GUIDANCE=(1, 3)).items():
        monkeypatch.setattr(table_text, name, value)
    (tmp_path / "results.md").write_text("before\n<!-- text -->\nold\n<!-- /text -->\nafter\n")
    return table_text.Text(tmp_path / "results", tmp_path / "results.md")


def test_one_training_gives_the_rows_of_all_captions_and_guidances(table, tmp_path):
    todo = table.missing()
    assert todo == [("imagen", "encoder-m", 0), ("imagen", "encoder-s", 0), ("clip", "shapes", 0)]
    rows = {run: table.rows(run) for run in todo}
    of_m, of_s, _ = rows.values()
    assert [(row["captions"], row["guidance"]) for row in of_s] == [(kind, "") for kind in KINDS]
    swept = [(kind, w) for kind in table_text.SWEPT for w in (1, 3)]
    assert [(row["captions"], row["guidance"]) for row in of_m] == [(kind, "") for kind in KINDS] + swept
    assert of_m[0]["bound of"] == 6 and of_m[-1]["bound of"] == 4 and "diversity" not in of_m[0]
    assert int(of_s[0]["encoder"]) < int(of_m[0]["encoder"]) < int(of_m[0]["parameters"])

    trained = train("imagen", "encoder-s", 0, size=16)
    model, kind = trained.model.eval(), [*KINDS][4]
    assert model.shape == (3, 16, 16) and of_s[0]["encoder"] == model.language.parameter_count
    captions = captions_of(kind, 6)
    texts = [shapes_captions.write(caption) for caption in captions]
    torch.manual_seed(0)
    x = torch.cat([model.sample(3, texts[:3]), model.sample(3, texts[3:])])
    found = metrics.shares(metrics.captions(captions, x))
    for name in table_text.SHARES:
        assert of_s[4].get(name) == (f"{found[name][0]:.4f}" if name in found else None)
    assert of_s[4]["unread of"] == 6

    for of_run in rows.values():
        for row in of_run:
            table.store(row)
    assert table.missing() == []
    models.recipes("imagen")["encoder-m"]["twice"] = dict(steps=3)  # of larger images
    assert table.missing() == []
    table.write()
    text = table.document.read_text()
    assert text.startswith("before\n<!-- text -->\n\n| encoder |") and text.endswith("<!-- /text -->\nafter\n")
    lines = text.splitlines()
    assert [line.split(" | ")[0] for line in lines if "`imagen`" in line] == [
        "| S, `imagen` (encoder-s)", "| M, `imagen` (encoder-m)"]
    assert sum(line.startswith("| four or five equal objects") for line in lines) == 4  # in two tables
    assert "![" in text and Image.open(tmp_path / "encoder.png").size[0] > 500 and "old" not in text


def test_the_shipped_run_is_measured_once_for_its_weights(table, tmp_path, monkeypatch):
    """FID of its samples, which are noise, is larger than that of the images, which are read without an error."""
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "shipped")
    assert list(table.anchors()) == []
    torch.manual_seed(0)
    clip = models.find("clip")((3, 16, 16), 256, shapes_captions.VOCABULARY, width=4, text_width=8, blocks=1, latent=4)
    checkpoint.save(tmp_path / "shipped" / "clip", clip, dict(step=1))
    assert list(table.anchors()) == []
    views = ["test images, 16x16", "imagen, 16x16", "imagen, 32x32"]
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = models.find("imagen")((3, 32, 32), 256, shapes_captions.VOCABULARY, **SMALL, **TEXT)
        model.stage.fill_(2)
        checkpoint.save(tmp_path / "shipped" / "imagen", model, dict(step=1))
        table_text.clip.cache_clear()
        rows = list(table.anchors())
        assert [(row["captions"], row["who"]) for row in rows] == [(kind, who) for kind in KINDS for who in views]
        assert {row["unread of"] for row in rows} == {6}
        for real, small, large in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            assert float(real["fid"]) < float(small["fid"]) and "fid" not in large
            assert float(real["whole"]) == 1 and float(real["unread"]) == 0
        for row in rows:
            table.store(row)
        assert list(table.anchors()) == []
    table_text.clip.cache_clear()
    x = table_text.images([scene for scene, _ in scenes_of([*KINDS][0], 12)])
    with torch.no_grad():
        z = checkpoint.load("clip").encode(x).double()
    assert float(rows[0]["fid"]) == pytest.approx(metrics.fid(z[:6], z[6:]), abs=0.51e-4)
    assert len(table.of_today()) == 3 * len(KINDS) and rows[1]["settings"] in {r["settings"] for r in table.of_today()}
    table.write()
    assert table.document.read_text().count("| imagen, 32x32 |") == len(KINDS)


def test_clip_is_judged_on_seen_and_unseen_pairs(table):
    seen, pairs = table.rows(("clip", "shapes", 0))
    assert (seen["captions"], pairs["captions"]) == ("shapes", "shapes-pairs")
    model = train("clip", "shapes", 0, size=16).model.eval()
    test = data.load("shapes-pairs", "test", size=16, captions=4)
    with torch.no_grad():
        s = torch.cat([model.encode(x) for x in test.x.split(500)]) @ torch.cat(
            [model.encode_text(y) for y in test.y.split(500)]).T
    same = (test.y[:, None] == test.y).all(2)
    assert pairs["caption"] == f"{(nearer(s, same) < 1).double().mean():.4f}" and pairs["caption of"] == len(test)
    assert pairs["image"] == f"{(nearer(s.T, same) < 1).double().mean():.4f}"
    assert 0 < float(seen["exchanged"]) < 1 and 500 < seen["exchanged of"] < 2000


def test_the_nearest_scene_is_judged_where_no_scene_is_read():
    """Of captions with things of two colours: of true ones, of exchanged ones, and of images too faint to read"""
    test = data.load("shapes", "test", size=16)
    parsed = [shapes_captions.parse(caption) for caption in test.captions]
    n = [n for n, caption in enumerate(parsed) if caption.relation and len(set(caption.says("colour"))) == 2][:40]
    captions, x = [parsed[k] for k in n], test.x[n]
    faint = (0.5 * x.float() + 0.5 * x.float().mean((2, 3), keepdim=True)).to(torch.uint8)
    assert metrics.captions(captions, faint)["unread"].all()
    true = table_text.of_nearest(captions, x)
    assert list(true) == table_text.NEAREST and all(values.eq(1).all() for values in true.values())
    exchanged = [shapes_captions.parse(shapes_captions.exchanged(test.captions[k])) for k in n]
    found = table_text.of_nearest(exchanged, x)
    assert found["nearest axis"].eq(1).all() and found["nearest order"].eq(0).all() and found["nearest bound"].all()
    found = table_text.of_nearest(captions, faint)
    assert not any(values.isnan().all() for values in found.values())


def test_diversity_is_1_of_data_and_0_of_one_image():
    captions = captions_of("one object", 300)
    fits = table_text.fitting(captions)
    judged = [metrics.captions([caption] * len(fit), fit)["whole"] for caption, fit in zip(captions, fits, strict=True)]
    assert torch.cat(judged).eq(1).all() and max(map(len, fits)) == table_text.DATA
    kept = [n for n, fit in enumerate(fits) if len(fit) > 1]
    chosen, right = [captions[n] for n in kept], torch.ones(len(kept), dtype=torch.bool)
    x = torch.stack([torch.stack([fits[n][0], fits[n][1]]) for n in kept], 1)
    ratio, error, n = table_text.diversity(chosen, x, right)
    assert n == len(kept) > 200 and 0 < float(error) < 0.1
    assert abs(float(ratio) - 1) < 4 * float(error)
    assert table_text.diversity(chosen, x[:1].expand(2, -1, -1, -1, -1), right) == ("0.0000", "0.0000", n)
    right[10:] = False  # the others do not count
    few = table_text.diversity(chosen, x, right)
    assert few == table_text.diversity(chosen[:10], x[:, :10], right[:10]) and few[2] == 10
    assert table_text.diversity(chosen, x, right & False) == ("", "", 0)


def test_a_distance_is_the_mean_of_all_pairs():
    x = torch.tensor([[0, 0], [2, 4], [0, 10]], dtype=torch.uint8)
    assert table_text.distance(x) == pytest.approx((3 + 5 + 4) / 3)


def test_captions_of_two_equal_objects_fit_scenes_of_two():
    captions = [shapes_captions.parse("two red circles"), shapes_captions.parse("a red circle")]
    two, one = table_text.fitting(captions)
    assert metrics.captions(["two red circles"] * len(two), two)["count"].eq(1).all()
    assert metrics.captions(["a red circle"] * len(one), one)["count"].eq(1).all()
    assert len(two) == len(one) == table_text.DATA


def test_shares_without_an_answer_are_left_out():
    values = {"bound": torch.tensor([1.0, 0.0]), "order": torch.tensor([math.nan, 1.0]),
              "size": torch.tensor([math.nan])}
    assert table_text.as_text(values) == {"bound": "0.5000", "bound error": "0.5000", "bound of": 2, "order": "1.0000",
                                          "order error": "", "order of": 1}
    row = {"size": "", "bound": "0.5", "bound error": "0.012", "order": "1.0", "order error": ""}
    assert [table_text.share(row, name) for name in ("size", "bound", "order")] == ["", "50.0 ± 1.2", "100.0"]
