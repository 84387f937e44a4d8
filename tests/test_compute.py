"""Where the server computes: what is chosen, and what is said when something is missing."""

import logging
import shutil
from typing import Any

import pytest
import torch
import torch._inductor.config

import edgedd
from edgedd.distillation.compute import KEPT_LESS, Compute
from edgedd.distillation.run import Distillation
from edgedd.errors import BudgetError, SettingError


def test_without_a_compiler_it_runs_eagerly_and_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING, "edgedd"):
        compute = Compute.choose("cpu")
    assert not compute.compiled
    assert len(caplog.records) == 1
    assert "C++ compiler" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]

    def function(x: int) -> int:
        return x

    assert compute.compile(function) is function


@pytest.mark.parametrize(("device", "training"), [("cpu", True), ("cpu", False), ("cuda", True)])
def test_only_training_on_a_processor_keeps_less(monkeypatch: pytest.MonkeyPatch, device: str, training: bool) -> None:
    """By names that the compiler knows."""
    found: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda function, dynamic, options: found.append(options))
    Compute(torch.device(device), bfloat16=False, compiled=True).compile(len, training=training)
    assert found == [KEPT_LESS if training and device == "cpu" else None]
    assert set(KEPT_LESS) <= set(torch._inductor.config.get_config_copy())


def test_bfloat16_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this torch does not tell")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++")
    for capabilities, compiled, expected in (
        ({"amx_bf16": True}, False, True),
        ({"amx_tile": True}, False, True),
        ({"avx512_bf16": True}, False, False),
        ({"avx512_bf16": True}, True, True),
        ({"avx512_f": True}, True, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda c=capabilities: c)
        assert Compute.choose("cpu", compiled=compiled).bfloat16 is expected


@pytest.mark.parametrize(
    "device",
    ["tpu", pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"))],
)
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(SettingError, match=device):
        Compute.choose(device)


def test_a_gpu_whose_memory_is_full_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Distillation) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")

    monkeypatch.setattr(Distillation, "run", full)
    with pytest.raises(BudgetError, match=r"the GPU's memory is full: .* or --device cpu") as caught:
        edgedd.distill("digits", method="random", ipc=1, seed=0)
    assert "\n" not in str(caught.value)
