"""A set for the compact file: the step with which it fits a number of bytes, and the price that keeps it there."""

from bisect import bisect_left
from collections.abc import Callable

import numpy as np
import torch

from edgedd.distillation import rate
from edgedd.distillation.rate import Rate
from edgedd.distillation.trainable_set import TrainableSet
from edgedd.errors import BudgetError

AIM = 0.985  # of the budget: what a set may take as it starts, since its codes' bytes are estimated
STEP = 2.5
WIDEN = 1.01
MOST_CODE = 120  # of 8 bits, with room to grow
STEER_EVERY = 100
UNUSED = 0.02


def fit_step(synthetic: TrainableSet, size: Callable[[], int], budget_bytes: int) -> None:
    """Give a set the finest step with which its file, of `size()` bytes, keeps within AIM of the budget.

    Raises BudgetError when no step does.
    """
    largest = max(float(values.detach().abs().max()) for values in synthetic.stepped())
    synthetic.step = max(STEP, largest / MOST_CODE)
    for _ in range(3):
        others = size() - rate.code_bytes(synthetic)
        if others > AIM * budget_bytes:
            raise BudgetError(
                f"{others:.0f} bytes without any image, the budget is {budget_bytes}: raise it or lower ipc"
            )
        low, high = np.log(largest / MOST_CODE), np.log(largest + 1)
        for _ in range(20):
            synthetic.step = float(np.float16(np.exp((low + high) / 2)))
            fits = rate.code_bytes(synthetic) + others <= AIM * budget_bytes
            low, high = (low, (low + high) / 2) if fits else ((low + high) / 2, high)
        synthetic.step = float(np.float16(np.exp(high)))
    widen(synthetic, size, budget_bytes)


def trim(synthetic: TrainableSet, size: Callable[[], int], budget_bytes: int) -> None:
    """Bring a set that was optimised at its step within the budget, at the same step.

    The price of bits leaves many values just above where they would become 0, so that a step a little wider drops a
    third of all codes. Instead codes of 1 become 0, from the smallest values up, as many as must: one by one, for those
    that the price has held at the edge differ in their last digits. Raises BudgetError.
    """
    step, trained = synthetic.step or STEP, [values.detach().clone() for values in synthetic.stepped()]

    def drop(limit: float) -> bool:
        with torch.no_grad():
            for values, before in zip(synthetic.stepped(), trained, strict=True):
                values.copy_(torch.where(before.abs() < limit, 0.0, before))
        return size() <= budget_bytes

    if not drop(0.0):
        most = (1 + rate.DEAD_ZONE) * step
        magnitudes = torch.cat([values.abs().flatten() for values in trained])
        ones = magnitudes[(magnitudes >= rate.DEAD_ZONE * step) & (magnitudes < most)].sort().values
        limits = [*ones.tolist(), most]
        drop(limits[bisect_left(range(len(limits) - 1), True, key=lambda count: drop(limits[count]))])
    widen(synthetic, size, budget_bytes)


def widen(synthetic: TrainableSet, size: Callable[[], int], budget_bytes: int) -> None:
    """Make the step as much wider as the file needs to keep within the budget. Raises BudgetError when none does."""
    while (taken := size()) > budget_bytes:
        if (synthetic.step or STEP) > 1000:
            raise BudgetError(f"{taken} bytes with no image left, the budget is {budget_bytes}: raise it or lower ipc")
        over = max(1.0, (taken / budget_bytes) ** 0.5)
        synthetic.step = float(np.float16((synthetic.step or STEP) * WIDEN * over))


def target(synthetic: TrainableSet, size: Callable[[], int], budget_bytes: int | None) -> float:
    """Bytes that the rest of the file leaves to the codes; with no budget, those that they take."""
    now = rate.code_bytes(synthetic)
    return now if budget_bytes is None else max(0.1 * budget_bytes, budget_bytes - (size() - now))


def steer(price: Rate, iteration: int, synthetic: TrainableSet, size: Callable[[], int], budget_bytes: int) -> None:
    """Every STEER_EVERY iterations, from the first on, as methods label anew: lead the codes to what is left to them.

    Labels grow surer as images move, and take fewer bytes than when the step was fitted. Values that move by small
    parts of a step a time do not fill what that leaves: where it is more than UNUSED of the budget the step becomes
    finer.
    """
    if iteration % STEER_EVERY != 1:
        return
    price.target_bytes, before = target(synthetic, size, budget_bytes), synthetic.step
    if price.target_bytes - rate.code_bytes(synthetic) < UNUSED * budget_bytes:
        return
    try:
        fit_step(synthetic, size, budget_bytes)
    except BudgetError:
        synthetic.step = before
    price.target_bytes = target(synthetic, size, budget_bytes)
    if synthetic.scales:
        synthetic.fit_scales()
