"""Teacher forcing in one pass: values and gradients are those of the decoder's steps."""

import pytest
import torch

from str_app.models.decoders.attention_decoder import AttentionDecoder, AttentionDecoderConfig
from str_app.models.decoders.teacher_forcing import TeacherForcing
from str_app.models.kernels.dispatch import torch_operations_only
from tests.tiny_recognizer import tiny_recognizer

CONFIG = AttentionDecoderConfig(hidden_size=8, attention_size=6, embedding_size=4, dropout=0.0)
TARGETS = torch.tensor([[3, 4, 0, 0, 0], [1, 2, 5, 8, 0], [0, 0, 0, 0, 0], [7, 7, 7, 7, 7]])  # the last is cut off


def tiny_decoder(**choices):
    torch.manual_seed(0)
    config = AttentionDecoderConfig(**{**vars(CONFIG), **choices})
    return AttentionDecoder(config, channels=12, grid=(2, 5), num_classes=9).double()


@pytest.mark.parametrize("positional_glimpse", [False, True])
@pytest.mark.parametrize(("refine", "gates"), [("mul", ("input", "output")), ("add", ("forget", "output"))])
def test_values_and_gradients_are_those_of_the_steps(refine, gates, positional_glimpse, monkeypatch):
    calls = []
    apply = TeacherForcing.apply
    monkeypatch.setattr(TeacherForcing, "apply", lambda *arguments: calls.append(1) or apply(*arguments))
    decoder = tiny_decoder(refine=refine, gates=gates, positional_glimpse=positional_glimpse)
    values = torch.randn(4, 10, 12, dtype=torch.float64, requires_grad=True)
    padding = torch.zeros(4, 10, dtype=torch.bool)
    padding[1, 3:5] = padding[1, 8:] = True
    taken = torch.arange(5) <= (TARGETS != 0).sum(dim=1, keepdim=True)
    d_logits, d_attention = torch.randn(4, 5, 9, dtype=torch.float64), torch.randn(4, 5, 10, dtype=torch.float64)

    def results():
        decoder.zero_grad()
        values.grad = None
        logits, attention = (x * taken.unsqueeze(2) for x in decoder(decoder.build_memory(values, padding), TARGETS))
        ((logits * d_logits).sum() + (attention * d_attention).sum()).backward()
        gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
        return {"logits": logits, "attention": attention, "feature map": values.grad, **gradients}

    with torch_operations_only():
        expected = results()
    assert not calls
    actual = results()
    assert calls
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


def test_a_batch_without_a_usable_sample():
    logits, attention, _ = tiny_recognizer()(
        torch.zeros(0, 3, 32, 64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64)
    )
    assert logits.shape[:2] == attention.shape[:2] == (0, 1)


def test_a_second_derivative_is_refused():
    model = tiny_recognizer(dropout=0.0)
    logits, _, _ = model(torch.randn(1, 3, 32, 64), torch.tensor([64]), torch.tensor([[1, 2, 0]]))
    with pytest.raises(RuntimeError, match="torch_operations_only"):
        torch.autograd.grad(logits.sum(), model.decoder.embedding.weight, create_graph=True)
