"""Tests of what the rest of genmini asks of a model: nothing but what `Model` documents, under whatever name it holds
the model."""

import ast
from pathlib import Path

import pytest

from genmini.models._lacks import SAMPLING
from genmini.models._model import Model

ROOT = Path(__file__).resolve().parents[2]
PATHS = [path for path in sorted([*ROOT.glob("genmini/**/*.py"), *ROOT.glob("bench/**/*.py")])
         if ROOT / "genmini" / "models" not in path.parents]
NAMES = {"model", "judged", "classifier"}  # a variable, an argument or an attribute of this name holds a model
MAKERS = {"checkpoint.load", "genmini.load", "models.find", "experiment.build"}  # what they return is a model
SAME = {"to", "eval", "train", "cpu", "double", "float", "requires_grad_"}  # methods that return the model
DOCUMENTED = {name for name in (*dir(Model), *Model.__annotations__) if not name.startswith("_")}
FUNCTIONS = ast.FunctionDef | ast.Lambda


def is_model(node, names):
    """Whether an expression is a model, or the class of one, where these names hold models."""
    match node:
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(attr=name):
            return name in NAMES
        case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in SAME and is_model(value, names):
            return True
        case ast.Call(func=function):
            return ast.unparse(function) in MAKERS or is_model(function, names)
        case ast.IfExp(body=one, orelse=other):
            return is_model(one, names) or is_model(other, names)
        case ast.BoolOp(values=values):
            return any(is_model(value, names) for value in values)
        case ast.NamedExpr(value=value):
            return is_model(value, names)
    return False


def inside(place):
    """The nodes of a function, or of a file, without those of the functions in it."""
    for node in ast.iter_child_nodes(place):
        yield node
        if not isinstance(node, FUNCTIONS):
            yield from inside(node)


def arguments(function):
    takes = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [each.arg for each in takes if each.arg != "self"]


def bound(target, value, names):
    """The names that hold a model after `target = value`."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return set().union(*(bound(one, other, names) for one, other in zip(target.elts, value.elts, strict=False)))
    return {target.id} if isinstance(target, ast.Name) and is_model(value, names) else set()


def of_models(tree):
    """-> {function, or the file: the names that hold models in it}: NAMES; what is assigned from a model; arguments
    where a call in the same file hands a model over; names of the function around it."""
    places = [tree, *(node for node in ast.walk(tree) if isinstance(node, FUNCTIONS))]
    called = {node.name: node for node in places if isinstance(node, ast.FunctionDef)}
    called |= {node.name: each for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
               for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"}
    names, before = {place: set(NAMES) for place in places}, 0
    while before != (before := sum(map(len, names.values()))):
        for place in places:
            held = names[place]
            for node in inside(place):
                match node:
                    case ast.FunctionDef() | ast.Lambda():
                        names[node] |= held - set(arguments(node))
                    case ast.Assign(targets=targets, value=value):
                        held |= set().union(*(bound(target, value, held) for target in targets))
                    case ast.NamedExpr(target=target, value=value):
                        held |= bound(target, value, held)
                    case ast.Call(func=ast.Name(name) | ast.Attribute(ast.Name("self"), name)) if name in called:
                        pairs = [*zip(arguments(called[name]), node.args, strict=False),
                                 *((each.arg, each.value) for each in node.keywords)]
                        names[called[name]] |= {name for name, value in pairs if is_model(value, held)}
    return names


def undocumented(code):
    """What the code asks of its models, and `Model` does not document."""
    return {ast.unparse(node) for place, names in of_models(ast.parse(code)).items() for node in inside(place)
            if isinstance(node, ast.Attribute) and node.attr not in DOCUMENTED and is_model(node.value, names)}


def of_families(code):
    """Where the code asks of which family a model is."""
    return {ast.unparse(node) for place, names in of_models(ast.parse(code)).items() for node in inside(place)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")
            and is_model(node.args[0], names) and ast.unparse(node.args[1]) != "Model"}


@pytest.mark.parametrize(("code", "names"), [
    ("run.model.phi + model.sample(2) + model._f() + self.judged.p", {"run.model.phi", "model._f", "self.judged.p"}),
    ("c = self.classifier\nf = [c.features(x) for x in X]\na = [c.W_y(h) for h in f]", {"c.features", "c.W_y"}),
    ("network.classifier.logits(x)", {"network.classifier.logits"}),
    ("m = checkpoint.load(run, device).eval()\nm.W, m.device", {"m.W"}),
    ("flow, n = experiment.build(plan, train), 3\nflow.steps, n.steps", {"flow.steps"}),
    ("family = models.find(name)\nfamily(shape).f, family.f, family.cannot('d')", {"family(shape).f", "family.f"}),
    ("def of(net, x):\n    return net.f(x)\ndef other(net):\n    net.g\nof(run.model, 2)", {"net.f"}),
    ("def of(x, *, net=None):\n    return net.f(x)\nof(2, net=model)", {"net.f"}),
    ("class A:\n    def __init__(self, one, net):\n        net.f, one.f\nA(2, model)", {"net.f"}),
    ("def of(self):\n    m = self.model\n    return lambda x: m.f(x)\ndef other(m):\n    m.g", {"m.f"}),
    ("if (m := run.model or None):\n    m.f", {"m.f"}),
    ("with_model.f, models.f, the.model.settings", set()),
])
def test_a_model_is_followed_under_every_name(code, names):
    assert undocumented(code) == names


def test_nobody_outside_the_models_asks_for_what_model_does_not_document():
    """bench_*.py are left out: each of them times one model, and knows it."""
    for name, member in vars(Model).items():
        if not name.startswith("_") and not isinstance(member, str | int | tuple):
            assert getattr(member, "__func__", member).__doc__, name
    paths = [path for path in PATHS if not path.name.startswith("bench_")]
    assert {path.name: names for path in paths if (names := undocumented(path.read_text()))} == {}


def test_nobody_outside_the_models_asks_of_which_family_a_model_is():
    assert of_families("m = run.model\nisinstance(m, GAN), isinstance(m, Model), isinstance(x, GAN)") == {
        "isinstance(m, GAN)"}
    assert {path.name: names for path in PATHS if (names := of_families(path.read_text()))} == {}


def arguments_of_sample(code):
    """The names of what the code hands to `sample`, of a model or through samples.draw and metrics.draw."""
    for place, names in of_models(ast.parse(code)).items():
        for node in inside(place):
            match node:
                case ast.Call(func=ast.Attribute(value=value, attr="sample")) if is_model(value, names):
                    yield from (each.arg for each in node.keywords if each.arg)
                case ast.Call(func=ast.Attribute(attr="draw") | ast.Name("draw"), args=[one, *_]) if (
                        is_model(one, names)):
                    yield from (each.arg for each in node.keywords if each.arg)


def test_nobody_outside_the_models_samples_by_arguments_that_the_contract_does_not_have():
    assert [*arguments_of_sample("run.model.sample(2, u=3, **how)\nsamples.draw(model, 2, w=1)\nx.sample(2, v=1)")] == [
        "u", "w"]
    found = {path.name: {*arguments_of_sample(path.read_text())} - {*SAMPLING, "x", "y"} for path in PATHS
             if not path.name.startswith("bench_")}
    assert {name: others for name, others in found.items() if others} == {}


def test_nobody_outside_the_models_asks_what_attributes_a_model_has():
    """The code of genmini/ and bench/ calls getattr and hasattr only on what is not a model."""
    others = {"torch", "arguments", "error", "self"}
    for path in PATHS:
        if {ROOT / "genmini" / "data", ROOT / "genmini" / "swap"} & {*path.parents}:  # they know no models
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                    and node.func.id in ("hasattr", "getattr")):
                owner = ast.unparse(node.args[0])
                assert owner.split(".")[0] in others, f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"
