"""Compiled convolutions: values and gradients, when they run, and that they do not change anything else."""

import copy
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from str_app.models.backbones.conv_norm import fold_batch_norms
from str_app.models.backbones.resnet import ResNetConfig
from str_app.models.kernels.convolution import (
    Convolution,
    convolve,
    is_suitable,
    transform_weight,
    weight_gradient,
)
from str_app.models.kernels.dispatch import torch_operations_only


def filters(channels, outputs, stride=1):
    return Convolution(channels, outputs, 3, stride, 1, bias=False)


def last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.integers(1, 5) | st.just(30),
    channels=st.tuples(*[st.integers(1, 40) | st.sampled_from([48, 65])] * 2),
    height=st.integers(1, 9),
    width=st.integers(1, 13),
    biased=st.booleans(),
    seed=st.integers(0, 100),
)
def test_values_and_gradients_are_those_of_the_definition(
    native_library, images, channels, height, width, biased, seed
):
    """Tiles and panels that are full, and those that are not."""
    torch.manual_seed(seed)
    C, K = channels
    x = last(torch.randn(images, C, height, width, dtype=torch.float64)).requires_grad_()
    weight = last(torch.randn(K, C, 3, 3, dtype=torch.float64)).requires_grad_()
    bias = torch.randn(K, dtype=torch.float64) if biased else None
    gradient = last(torch.randn(images, K, height, width, dtype=torch.float64))
    expected = F.conv2d(x, weight, bias, padding=1)
    expected_gradients = torch.autograd.grad(expected, (x, weight), gradient)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-4)):
        maps, kernel, d_maps = (last(tensor.detach().to(dtype)) for tensor in (x, weight, gradient))
        shift = None if bias is None else bias.to(dtype)
        output = convolve(native_library, maps, transform_weight(native_library, kernel, height), K, shift)
        transposed = transform_weight(native_library, kernel, height, transposed=True)
        d_x, d_weight = convolve(native_library, d_maps, transposed, C), weight_gradient(native_library, maps, d_maps)
        for actual, exact in zip((output, d_x, d_weight), (expected, *expected_gradients), strict=True):
            scale = max(exact.abs().max().item(), 1.0)
            torch.testing.assert_close(actual.double(), exact.detach(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("height", [2, 8])
def test_a_convolution_uses_the_compiled_functions(calls, height):
    torch.manual_seed(0)
    convolution = filters(5, 7)
    x = torch.randn(2, 5, height, 9, requires_grad=True)
    output = convolution(x)
    output.square().sum().backward()
    assert calls == ["transformed_size", "transform_weight", "convolve"] * 2 + ["weight_gradient"]
    gradients = x.grad, convolution.weight.grad
    x.grad = None
    convolution.zero_grad()
    with torch_operations_only():
        expected = convolution(x)
        expected.square().sum().backward()
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients, (x.grad, convolution.weight.grad), rtol=1e-4, atol=1e-3)


def test_only_needed_gradients_are_computed(calls):
    convolution = filters(5, 7)
    convolution(torch.randn(2, 5, 8, 9)).sum().backward()
    assert calls == ["transformed_size", "transform_weight", "convolve", "weight_gradient"]
    calls.clear()
    convolution.requires_grad_(False)
    convolution(torch.randn(2, 5, 8, 9, requires_grad=True)).sum().backward()
    assert calls == ["transformed_size", "transform_weight", "convolve"] * 2


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_torch_runs_what_they_do_not_support(calls):
    convolution, x = filters(5, 7), torch.randn(2, 5, 8, 9)
    with torch_operations_only():
        expected = convolution(x)
    traced = torch.jit.trace(convolution, x, check_trace=False)
    torch.testing.assert_close(traced(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution(x).dtype == torch.bfloat16
    assert filters(5, 7).bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert filters(5, 7, stride=(2, 1))(x).shape == (2, 7, 4, 9)
    assert convolution(torch.randn(2, 5, 5, 9)).shape == (2, 7, 5, 9)
    assert convolution(torch.randn(0, 5, 8, 9)).shape == (0, 7, 8, 9)
    assert calls == []


@pytest.mark.parametrize("channels", [4, 6])
def test_channels_that_do_not_fit_are_refused(calls, channels):
    with pytest.raises(RuntimeError, match=f"{channels} channels"):
        filters(5, 7)(torch.randn(2, channels, 8, 9))
    assert calls == []


@pytest.mark.parametrize("height", [1, 2, 5, 8])
def test_heights_that_fill_tiles(height):
    assert is_suitable(height) == (height in (2, 8))


@pytest.mark.parametrize("height", [2, 4])
def test_threads_and_the_rest_of_the_batch_do_not_change_a_bit(calls, height):
    torch.manual_seed(3)
    convolution, x = filters(64, 96), torch.randn(40, 64, height, 32)  # work enough for three threads
    threads = torch.get_num_threads()
    try:
        with torch.no_grad():
            torch.set_num_threads(1)
            expected = convolution(x)
            torch.set_num_threads(3)
            assert torch.equal(convolution(x), expected)
            assert torch.equal(convolution(x[7:8]), expected[7:8])
    finally:
        torch.set_num_threads(threads)


def test_a_nan_affects_only_its_own_image(calls):
    x = torch.randn(9, 4, 8, 8)
    x[5, 1, 3, 3] = torch.nan
    spoiled = filters(4, 4)(x).isnan().flatten(1)
    assert spoiled[5].any()
    assert not spoiled[[0, 1, 2, 3, 4, 6, 7, 8]].any()


def test_weights_are_transformed_once_and_again_when_they_change(calls):
    convolution = filters(4, 6)
    convolution.bias = nn.Parameter(torch.randn(6))
    x = torch.randn(2, 4, 8, 8)

    def check():
        convolution.requires_grad_(False)
        with torch.inference_mode():
            output = convolution(x)
        with torch_operations_only():
            torch.testing.assert_close(output, convolution(x).detach(), rtol=1e-4, atol=1e-4)

    check()
    check()
    assert calls.count("transform_weight") == 1
    with torch.no_grad():
        convolution.weight.mul_(2)
    check()
    convolution.load_state_dict({"weight": torch.randn(6, 4, 3, 3), "bias": torch.zeros(6)})
    check()
    convolution.weight = nn.Parameter(torch.randn(6, 4, 3, 3))
    check()
    x = torch.randn(2, 4, 2, 8)
    check()
    assert calls.count("transform_weight") == 5
    for twin in (copy.deepcopy(convolution), pickle.loads(pickle.dumps(convolution))):
        assert twin._cached is None
        torch.testing.assert_close(twin(x), convolution(x))
    assert list(convolution.state_dict()) == ["weight", "bias"]


def test_second_derivatives_are_refused(calls):
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    output = filters(3, 3)(x).square().sum()
    with pytest.raises(RuntimeError, match="torch_operations_only"):
        torch.autograd.grad(output, x, create_graph=True)


def test_a_backbone_computes_the_same(calls):
    torch.manual_seed(1)
    backbone = ResNetConfig("resnet", (8, 12), (2, 1), (16, 24), (2, 2), ((2, 2), (2, 1)), fpn=True).build()
    backbone.to(memory_format=torch.channels_last)
    x = torch.randn(3, 3, 32, 64)
    with torch_operations_only():
        backbone(x)  # batch statistics
        expected = backbone.eval()(x)
    output = backbone(x)
    assert calls.count("convolve") == 7
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(fold_batch_norms(backbone)(x), expected, rtol=1e-3, atol=1e-4)


def test_weights_that_are_trained_are_never_stale(calls):
    torch.manual_seed(2)
    convolution, x = filters(4, 6), torch.randn(2, 4, 8, 8)
    optimizer = torch.optim.AdamW(convolution.parameters(), lr=0.1, fused=True)  # raises no version
    for _ in range(3):
        convolution(x).square().sum().backward()
        optimizer.step()
        with torch.no_grad(), torch_operations_only():
            expected = convolution(x)
        with torch.no_grad():
            torch.testing.assert_close(convolution(x), expected, rtol=1e-3, atol=1e-4)


def test_weight_gradients_with_more_threads_than_have_work(native_library):
    """Shapes in turn, so that a sum over what another one left in memory would show."""
    torch.manual_seed(4)
    shapes = [(400, 48, 4, 16), (3120, 48, 4, 4), (1600, 64, 4, 4)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(16)
        for _ in range(3):
            for images, channels, height, width in shapes:
                x, d_output = (last(torch.randn(images, channels, height, width)) for _ in range(2))
                with torch_operations_only():
                    weight = torch.zeros(channels, channels, 3, 3, requires_grad=True)
                    (expected,) = torch.autograd.grad(F.conv2d(x, weight, padding=1), weight, d_output)
                actual = weight_gradient(native_library, x, d_output)
                assert (actual - expected).abs().max() < 1e-3 * expected.abs().max()
    finally:
        torch.set_num_threads(threads)
