"""Optimizer steps inside the graph: the same arithmetic as torch.optim.

A rule appends the step of one parameter: inputs of state `<kind>.<name>`, outputs `next.<kind>.<name>` and
`next.p.<name>`.
"""

from collections.abc import Callable, Sequence

from edgedd.exporting.builder import GraphBuilder
from edgedd.recipe import Recipe

BETA2, EPSILON = 0.999, 1e-8
Shape = Sequence[int]
Rule = Callable[[GraphBuilder, Recipe, str, str, Shape], list[str]]


def sgd(b: GraphBuilder, recipe: Recipe, name: str, gradient: str, shape: Shape) -> list[str]:
    """g += wd p;  m = momentum m + g;  p -= lr m (torch.optim.SGD without dampening); no state without momentum."""
    gradient = _decayed(b, recipe, name, gradient)
    if not recipe.momentum:
        return [_moved(b, name, b.node("Mul", gradient, "lr"))]
    buffer = _buffer(b, recipe, name, gradient, shape)
    return [_moved(b, name, b.node("Mul", buffer, "lr")), buffer]


def nesterov(b: GraphBuilder, recipe: Recipe, name: str, gradient: str, shape: Shape) -> list[str]:
    """As sgd, but p -= lr (g + momentum m)."""
    gradient = _decayed(b, recipe, name, gradient)
    buffer = _buffer(b, recipe, name, gradient, shape)
    ahead = b.node("Add", gradient, b.node("Mul", buffer, b.constant(recipe.momentum)))
    return [_moved(b, name, b.node("Mul", ahead, "lr")), buffer]


def adamw(b: GraphBuilder, recipe: Recipe, name: str, gradient: str, shape: Shape) -> list[str]:
    """Loshchilov and Hutter 2019, Algorithm 2, as torch.optim.AdamW; beta1 is the recipe's momentum, beta2 0.999.

    The input `step` counts from 1.
    """
    beta1 = recipe.momentum
    mean = _averaged(b, b.input(f"momentum.{name}", shape), gradient, beta1, f"next.momentum.{name}")
    square = b.node("Mul", gradient, gradient)
    variance = _averaged(b, b.input(f"variance.{name}", shape), square, BETA2, f"next.variance.{name}")
    step = "step" if "step" in b.inputs else b.input("step", ())
    unbiased = [b.node("Sub", b.constant(1.0), b.node("Pow", b.constant(beta), step)) for beta in (beta1, BETA2)]
    deviation = b.node("Sqrt", b.node("Div", variance, unbiased[1]))
    direction = b.node("Div", b.node("Div", mean, unbiased[0]), b.node("Add", deviation, b.constant(EPSILON)))
    if recipe.weight_decay:
        direction = b.node("Add", direction, b.scaled(f"p.{name}", recipe.weight_decay))
    return [_moved(b, name, b.node("Mul", direction, "lr")), mean, variance]


OPTIMIZER_STEPS: dict[str, Rule] = {"sgd": sgd, "nesterov": nesterov, "adamw": adamw}


def _decayed(b: GraphBuilder, recipe: Recipe, name: str, gradient: str) -> str:
    return b.node("Add", gradient, b.scaled(f"p.{name}", recipe.weight_decay)) if recipe.weight_decay else gradient


def _buffer(b: GraphBuilder, recipe: Recipe, name: str, gradient: str, shape: Shape) -> str:
    kept = b.node("Mul", b.input(f"momentum.{name}", shape), b.constant(recipe.momentum))
    return b.node("Add", kept, gradient, name=f"next.momentum.{name}")


def _averaged(b: GraphBuilder, average: str, value: str, beta: float, name: str) -> str:
    return b.node("Add", b.scaled(average, beta), b.scaled(value, 1 - beta), name=name)


def _moved(b: GraphBuilder, name: str, change: str) -> str:
    return b.node("Sub", f"p.{name}", change, name=f"next.p.{name}")
