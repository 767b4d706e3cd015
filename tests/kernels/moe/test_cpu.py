# SPDX-License-Identifier: Apache-2.0
"""The CPU kernel: what it computes, and that stopping it changes no bit of that."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.moe.layer import Layer, error, layer
from vllm_qllm.kernels.moe import cpu, cpu_library

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))
# The activation and the output are rounded to the 8 bits of bf16: 2.4e-3 of a large layer, and
# more of a tiny one. `test_is_as_exact_as_stock` says that nothing else is lost.
CLOSE = 6e-3
KERNELS = [
    name
    for name, number in cpu_library.KERNELS.items()
    if cpu.available() is None and cpu_library.need().qllm_unavailable(number) is None
]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        layer,
        tokens=st.integers(1, 200),
        hidden=st.sampled_from([32, 96, 320]),
        inter=st.sampled_from([32, 64, 288]),
        experts=st.sampled_from([8, 9, 32]),
        topk=st.integers(1, 8),
        activation=st.sampled_from(sorted(cpu.ACTIVATIONS)),
        biases=st.booleans(),
        elsewhere=st.sampled_from([0, 0, 3, 40]),
        favourite=st.sampled_from([0.0, 0.0, 1.0, 5.0]),
        ids=st.sampled_from([torch.int32, torch.int64]),
        seed=st.integers(0, 1000),
    ),
    st.sampled_from(KERNELS),
    st.integers(1, 2),
)
def test_computes_the_layer(made: Layer, kernel: str, threads: int) -> None:
    torch.set_num_threads(threads)
    assert error(made.result(kernel=kernel), made.expected()) < CLOSE


@pytest.mark.parametrize(
    ("tokens", "hidden", "inter", "experts", "topk"),
    [(16384, 64, 32, 8, 2), (2048, 1024, 1792, 8, 2), (300, 512, 64, 256, 8)],
)
def test_computes_large_layers(
    tokens: int, hidden: int, inter: int, experts: int, topk: int
) -> None:
    made = layer(tokens, hidden, inter, experts, topk)
    some = slice(None, None, max(1, tokens // 100))
    output = made.result()[some]
    made.hidden, made.weights, made.ids = made.hidden[some], made.weights[some], made.ids[some]
    assert error(output, made.expected()) < CLOSE


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize("activation", sorted(cpu.ACTIVATIONS))
def test_is_as_exact_as_stock(tokens: int, activation: str, kernel: str) -> None:
    from vllm._custom_ops import cpu_fused_moe, cpu_prepack_moe_weight
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    isa = "amx" if torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx() else "vec"
    made = layer(tokens, 256, 192, 8, 2, activation, biases=True)
    w13, w2 = (cpu_prepack_moe_weight(weight, isa) for weight in (made.w13, made.w2))
    stock = torch.empty_like(made.hidden)
    router = made.weights, made.ids, activation, isa, False
    cpu_fused_moe(stock, made.hidden, w13, w2, made.bias13, made.bias2, *router)
    expected = made.expected()
    output = made.result(kernel=kernel)
    assert error(output, expected) <= 1.02 * error(stock, expected)
    assert error(output, stock.float()) < CLOSE


def test_leaves_out_router_weights_that_the_input_has() -> None:
    made = layer(40, topk=1)
    output = made.result(apply_router_weight_on_input=True)
    assert error(output, made.expected(unweighted=True)) < CLOSE
    assert not torch.equal(output, made.result())


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 120),
    kernel=st.sampled_from(KERNELS),
    pieces=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), max_size=30),
    favourite=st.sampled_from([0.0, 2.0]),
)
def test_stops_change_no_bit(
    tokens: int, kernel: str, pieces: list[tuple[int, int]], favourite: float
) -> None:
    made = layer(tokens, 160, 288, favourite=favourite, biases=True)
    torch.set_num_threads(1)
    whole = made.result(kernel=kernel)
    output, work = made.work(kernel=kernel)
    for items, threads in pieces:
        torch.set_num_threads(threads)
        before = work.position
        done = work.run(max_items=items)
        assert work.position == min(before + items, work.items)
        assert done == (work.position == work.items)
    assert work.run()
    assert work.run()  # there is nothing left to do
    assert torch.equal(output, whole)


@pytest.mark.parametrize("kernel", sorted({"amx", "avx512"}.intersection(KERNELS)))
def test_a_row_does_not_depend_on_the_rows_beside_it(kernel: str) -> None:
    made = layer(70, 320, 288, experts=2, topk=1, biases=True)
    made.ids[:] = 0  # one expert has all rows
    hidden, weights, ids = made.hidden, made.weights, made.ids
    whole = made.result(kernel=kernel)
    for count in [*range(1, 34), 64, 65]:
        made.hidden, made.weights, made.ids = hidden[-count:], weights[-count:], ids[-count:]
        assert torch.equal(made.result(kernel=kernel), whole[-count:]), f"of {count} rows"


@pytest.mark.parametrize("kernel", KERNELS)
def test_work_nests_in_stopped_work(kernel: str) -> None:
    outer, inner = layer(150, 256, 288), layer(33, 128, 64, seed=1)
    alone = outer.result(kernel=kernel), inner.result(kernel=kernel)
    output, work = outer.work(kernel=kernel)
    while not work.run(max_items=5):
        assert torch.equal(inner.result(kernel=kernel), alone[1])
        torch.mm(outer.hidden, outer.hidden.T)  # oneDNN sets up the same registers
    assert torch.equal(output, alone[0])


def test_a_token_of_another_rank_gets_zeros() -> None:
    made = layer(64, elsewhere=8)
    made.ids[::2] = -1
    assert not made.result()[::2].any()
    made.ids[:] = 2**31 - 1
    assert not made.result().any()


def test_the_stop_word_stops() -> None:
    made, word = layer(50), ctypes.c_int64(7)
    whole = made.result()
    output, work = made.work()
    assert not work.run(ctypes.addressof(word), stop_value=7)
    assert work.position == 0
    assert not work.run(ctypes.addressof(word), stop_value=8, max_items=3)
    assert work.position == 3
    assert not work.run(ctypes.addressof(word), stop_value=7)
    assert work.position == 3
    assert work.run(ctypes.addressof(word), stop_value=-7)
    assert torch.equal(output, whole)


@pytest.mark.alone
@pytest.mark.parametrize("threads", [1, 2])
def test_the_stop_word_stops_work_in_progress(threads: int) -> None:
    torch.set_num_threads(threads)
    made, word = layer(16384, 256, 512), ctypes.c_int64()
    whole = made.result()
    stops = []
    for _ in range(20):  # the system may not have run the other thread before the word was set
        word.value = 0
        output, work = made.work()

        def run(work: cpu.Work = work) -> None:
            torch.set_num_threads(threads)
            work.run(ctypes.addressof(word), stop_value=1)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.005)
        word.value = 1
        thread.join()
        stops.append(work.position)
        assert work.run()
        assert torch.equal(output, whole)
        if 0 < stops[-1] < work.items:
            return
    pytest.fail(f"of {work.items} items, these were done: {stops}")


@pytest.mark.alone
def test_an_item_is_short() -> None:
    torch.set_num_threads(1)
    made = layer(4096, 1024, 1024, 8, 2)
    longest: list[float] = []
    for _ in range(3):
        _, work = made.work()
        times, done = [], False
        while not done:
            start = time.thread_time()
            done = work.run(max_items=1)
            times.append(1e3 * (time.thread_time() - start))
        longest = [min(pair) for pair in zip(longest or times, times, strict=True)]
    assert max(longest) < 1.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"activation": "relu"}, "relu"),
        ({"weights": torch.zeros(4, 3)}, "topk_weights must be"),
        ({"ids": torch.zeros(4, 2)}, "int32 or int64"),
        ({"hidden": torch.zeros(4, 64)}, "must be contiguous"),
        ({"bias2": torch.zeros(8, 64)}, "bias2 must be"),
    ],
)
def test_refuses_what_it_cannot_read(change: dict[str, object], said: str) -> None:
    made = layer(4)
    for name, value in change.items():
        setattr(made, name, value)
    with pytest.raises(ValueError, match=said):
        made.work()


@pytest.mark.parametrize("shape", [(2, 32, 33), (2, 48, 32), (32, 32)])
def test_refuses_to_pack_odd_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got"):
        cpu.pack(torch.zeros(shape, dtype=torch.bfloat16))


def test_packing_keeps_every_weight() -> None:
    weight = torch.arange(2 * 64 * 96).reshape(2, 64, 96).to(torch.int16).view(torch.bfloat16)
    packed = cpu.pack(weight)
    assert packed.nbytes == weight.nbytes
    panels = packed.view(torch.int16).reshape(2, 2, 48, 32, 2)  # [E, N / 32, K / 2, 32, 2]
    plain = panels.permute(0, 1, 3, 2, 4).reshape(2, 64, 96)
    assert torch.equal(plain, weight.view(torch.int16))
