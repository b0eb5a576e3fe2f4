"""Matrix products by the compiled functions."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from str_app.models.kernels.product import product


def test_shapes_that_do_not_fit(native_library):
    a = torch.randn(3, 4)
    with pytest.raises(RuntimeError, match=r"\(3, 4\) and \(5, 2\)"):
        product(native_library, a, torch.randn(5, 2))
    with pytest.raises(RuntimeError, match=r"\(4, 2\) and \(3,\)"):
        product(native_library, a, torch.randn(4, 2), torch.randn(3))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.tuples(*[st.integers(0, 40) | st.sampled_from([64, 100, 257, 515])] * 3),
    turned=st.tuples(st.booleans(), st.booleans()),
    biased=st.booleans(),
    tanh=st.booleans(),
    seed=st.integers(0, 100),
)
def test_product(native_library, sizes, turned, biased, tanh, seed):
    torch.manual_seed(seed)
    M, N, K = sizes
    a = torch.randn(K, M, dtype=torch.float64).t() if turned[0] else torch.randn(M, K, dtype=torch.float64)
    b = torch.randn(N, K, dtype=torch.float64).t() if turned[1] else torch.randn(K, N, dtype=torch.float64)
    bias = torch.randn(N, dtype=torch.float64) if biased else None
    expected = a @ b if bias is None else a @ b + bias
    expected = expected.tanh() if tanh else expected
    torch.testing.assert_close(product(native_library, a, b, bias, tanh), expected, rtol=1e-12, atol=1e-12)
    single = product(native_library, a.float(), b.float(), None if bias is None else bias.float(), tanh)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-4)
