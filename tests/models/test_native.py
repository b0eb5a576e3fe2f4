"""The compiled loops: when they are taken, what they compute at the edges, and what happens where they cannot load.

Their values and gradients are held to the loop of cells in test_refined_paths.py.
"""

import copy
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from str_app.bench.gates import overhead
from str_app.models.gates.gate import RefinedGate
from str_app.models.gates.layers import RefinedGRU, RefinedLSTM, RefinedMGU
from str_app.models.gates.units import LSTM
from str_app.models.kernels.native import __main__ as command
from str_app.models.kernels.native import library as native

LAYERS = (RefinedLSTM, RefinedGRU, RefinedMGU)
PRECISIONS = (torch.float32, torch.float64)


def values_and_gradients(layer, x, state=None):
    """Output, last states, and the gradients of x and of all parameters."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    output, last = layer(x, state)
    last = last if isinstance(last, tuple) else (last,)
    (output.square().sum() + sum(one.sin().sum() for one in last)).backward()
    return [output.detach(), *(one.detach() for one in last), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_fused_layer_takes_them(calls, kind):
    layer = kind(3, 4)
    x = torch.randn(20, 2, 3)
    layer(x)[0].sum().backward()
    assert set(calls) == {f"{kind.unit.name.lower()}_{way}" for way in ("forward", "backward")} | {"gemm"}
    calls.clear()
    layer(x[:7])  # 14 rows
    with native.torch_operations_only():
        layer(x)
    layer.fused = False
    layer(x)
    kind(3, 4, dtype=torch.bfloat16)(x.bfloat16())
    assert calls == []


@pytest.mark.parametrize("refine", ["add", "mul"])
@pytest.mark.parametrize("hidden", [1, 16, 37, 130])
@pytest.mark.parametrize("kind", LAYERS)
def test_any_width_equals_torchs_operations(calls, kind, hidden, refine):
    """Vectors, panels and tiles that are full, and those that are not."""
    torch.manual_seed(0)
    layer = kind(5, hidden, bidirectional=True, refine=refine, dtype=torch.float64)
    x = torch.randn(5, 13, 5, dtype=torch.float64)
    found = values_and_gradients(layer, x)
    with native.torch_operations_only():
        expected = values_and_gradients(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_one_path_forwards_and_the_other_backwards(calls, kind):
    torch.manual_seed(1)
    layer = kind(6, 6, feature="identity", dtype=torch.float64)
    x = torch.randn(8, 3, 6, dtype=torch.float64)
    expected = torch.autograd.grad(layer(x)[0].square().sum(), layer.weight_hh_l0)
    with native.torch_operations_only():
        output = layer(x)[0]
        mixed = layer(x)[0].square().sum()
    torch.testing.assert_close(torch.autograd.grad(output.square().sum(), layer.weight_hh_l0), expected)
    with native.torch_operations_only():
        torch.testing.assert_close(torch.autograd.grad(mixed, layer.weight_hh_l0), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_strides_do_not_matter(calls, kind):
    torch.manual_seed(2)
    layer = kind(6, 6, feature="identity", dtype=torch.float64)
    odd = copy.deepcopy(layer)
    for parameter in odd.parameters():
        parameter.data = torch.stack([parameter.data, parameter.data], dim=-1)[..., 0]
    x = torch.randn(4, 6, 8, dtype=torch.float64).permute(2, 0, 1)
    state = torch.randn(1, 1, 6, dtype=torch.float64).expand(1, 4, 6)
    state = (state, state) if kind is RefinedLSTM else state
    found = values_and_gradients(odd, x, state)
    expected = values_and_gradients(layer, x.contiguous(), state)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_neither_threads_nor_company_change_a_bit(calls, kind, dtype):
    torch.manual_seed(3)
    layer = kind(64, 96, dtype=dtype)  # work enough for three threads
    x = torch.randn(40, 50, 64, dtype=dtype)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3, 3):
            torch.set_num_threads(count)
            results.append(values_and_gradients(layer, x))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert torch.equal(layer(x[:, 7:18])[0], results[0][0][:, 7:18])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(*[st.integers(0, 40) | st.sampled_from([64, 100, 257, 515])] * 3),
    turned=st.tuples(st.booleans(), st.booleans()),
    biased=st.booleans(),
    squash=st.booleans(),
    seed=st.integers(0, 100),
)
def test_product(native_library, sizes, turned, biased, squash, seed):
    torch.manual_seed(seed)
    M, N, K = sizes
    a = torch.randn(K, M, dtype=torch.float64).t() if turned[0] else torch.randn(M, K, dtype=torch.float64)
    b = torch.randn(N, K, dtype=torch.float64).t() if turned[1] else torch.randn(K, N, dtype=torch.float64)
    bias = torch.randn(N, dtype=torch.float64) if biased else None
    expected = a @ b if bias is None else a @ b + bias
    expected = expected.tanh() if squash else expected
    torch.testing.assert_close(native_library.product(a, b, bias, squash), expected, rtol=1e-12, atol=1e-12)
    single = native_library.product(a.float(), b.float(), None if bias is None else bias.float(), squash)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gates_are_exact_to_a_few_roundings(native_library, dtype):
    torch.manual_seed(4)
    x = torch.cat([torch.linspace(-30, 30, 5001), torch.randn(5000) * 10.0 ** torch.randint(-30, 2, (5000,))])
    x = torch.cat([x, torch.tensor([0.0, 1e4, -1e4, torch.inf, -torch.inf, torch.nan])]).to(dtype)[:, None]
    # One step without recurrent weights: the gates are σ of the projections, the candidate their tanh.
    acts = x.repeat(1, 4)
    states = [torch.zeros_like(x) for _ in range(6)]
    weight = torch.zeros(4, 1, dtype=dtype)
    native_library.run("lstm_forward", LSTM, RefinedGate("none"), [len(x)], False, weight, None, acts, *states)
    exact = x.double()
    expected = torch.cat([exact.sigmoid(), exact.sigmoid(), exact.tanh(), exact.sigmoid()], dim=1)
    limits = torch.finfo(dtype)
    torch.testing.assert_close(acts.double(), expected, rtol=4 * limits.eps, atol=2 * limits.tiny, equal_nan=True)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_nan_spoils_its_own_sequence_alone(calls, kind):
    x = torch.randn(20, 3, 4)
    x[5, 1] = torch.nan
    output = kind(4, 4)(x)[0].isnan()
    assert output[5:, 1].all()
    assert not output[:, [0, 2]].any()
    assert not output[:5].any()


class Recorder(TorchDispatchMode):
    """Notes every operation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace:DeprecationWarning")
def test_what_follows_operations_gets_operations(calls):
    layer = RefinedLSTM(3, 4)
    x, other = torch.randn(2, 20, 2, 3)
    expected = layer(other)[0]
    calls.clear()
    traced = torch.jit.trace(layer, x, check_trace=False)
    torch.testing.assert_close(traced(other)[0], expected)
    with Recorder() as recorder:
        layer(x)
    assert recorder.seen.count(torch.ops.aten.addmm_.default) == 20  # one a step
    assert calls == []


@pytest.mark.parametrize("unit", ["LSTM", "GRU", "MGU"])
def test_no_more_is_kept_for_the_backward_pass(calls, unit):
    compiled = overhead(unit, "mul", (8, 10, 16)).kept_bytes["refined"]
    assert calls
    with native.torch_operations_only():
        assert compiled <= overhead(unit, "mul", (8, 10, 16)).kept_bytes["refined"]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, in which the library is looked for anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("STR_APP_NATIVE", raising=False)
    native.find_library.cache_clear()
    yield tmp_path
    native.find_library.cache_clear()


def test_without_a_library_nothing_is_said(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.find_library() is None
        RefinedGRU(3, 4)(torch.randn(20, 2, 3))


@pytest.mark.parametrize("content", ["no library", "another's", "of another key"])
def test_a_foreign_file_is_warned_of_once_and_left(cache, monkeypatch, native_library, content):
    place = native.path(native.this_processor())
    place.parent.mkdir(parents=True)
    if content == "no library":
        place.write_bytes(b"\x7fELF or so")
    elif content == "another's":
        place.symlink_to(torch._C.__file__)
    else:
        place.symlink_to(native_library.path)
        monkeypatch.setattr(native, "path", lambda processor: place)
        monkeypatch.setattr(native, "key", lambda processor: "tomorrow's")
    layer = RefinedLSTM(3, 4)
    with pytest.warns(UserWarning, match="python -m str_app.models.kernels.native"):
        assert layer(torch.randn(20, 2, 3))[0].isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(20, 2, 3))


def test_switched_off_by_the_environment(cache, monkeypatch):
    place = native.path(native.this_processor())
    place.parent.mkdir(parents=True)
    place.write_bytes(b"would be warned of")
    monkeypatch.setenv("STR_APP_NATIVE", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.find_library() is None


def test_a_folder_may_be_named(cache, monkeypatch):
    monkeypatch.setenv("STR_APP_NATIVE", str(cache / "own"))
    place = native.path("AVX2")
    assert place.parent == cache / "own"
    monkeypatch.delenv("STR_APP_NATIVE")
    assert native.path("AVX2") == cache / "str-app/native" / place.name


def test_another_processor_is_another_file(cache, monkeypatch, capsys):
    monkeypatch.setattr(command, "build", native.path)
    monkeypatch.setattr(command.platform, "machine", lambda: "x86_64")
    command.main(["--every"])
    built = capsys.readouterr().out.split()
    assert len(set(built)) == 3
    for name, expected in (("AVX512", "avx512"), ("SVE256", "default"), ("NO AVX", "default")):
        monkeypatch.setattr(native.torch.backends.cpu, "get_cpu_capability", lambda name=name: name)
        assert f"-{expected}-" in native.path(native.this_processor()).name
    command.main([])
    assert capsys.readouterr().out.split() == [str(native.path(native.this_processor()))]


def test_building_without_a_compiler_says_so(cache, monkeypatch):
    monkeypatch.setattr(command.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"install g\+\+, or name one in CXX"):
        command.build("DEFAULT")
    assert not native.path("DEFAULT").exists()


def test_a_failed_build_leaves_nothing_behind(cache, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(command.subprocess.CalledProcessError):
        command.build("DEFAULT")
    assert list(native.path("DEFAULT").parent.iterdir()) == []
