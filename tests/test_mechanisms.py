import pytest
import torch

from dynlib.mechanisms import FALL_BACKS, ConfidenceExit, Deployed

THRESHOLDS = (0.15, 0.5, 0.9, 0.99)


@pytest.mark.parametrize("fall_back", FALL_BACKS)
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("which", ["dynn", "sdnn", "untrained"])
def test_skipping_changes_no_decision(request, sample, which, threshold, fall_back):
    net, images = request.getfixturevalue(which), sample[0][:64]
    mechanism = ConfidenceExit(threshold, fall_back)
    with torch.no_grad():
        expected = mechanism.decide(net(images))
    seen = mechanism.infer(net, images)
    for name in ("label", "exit", "depth"):
        assert getattr(seen, name).equal(getattr(expected, name)), name
    torch.testing.assert_close(seen.logits, expected.logits, atol=1e-4, rtol=1e-4)


def test_what_is_skipped_is_not_computed(dynn, sample):
    computed = []
    hooks = [exit.register_forward_hook(lambda module, inputs, output: computed.append(len(output))) for exit in dynn.exits]
    depth = ConfidenceExit(0.9).infer(dynn, sample[0]).depth
    for hook in hooks:
        hook.remove()
    assert computed == [(depth >= k).sum().item() for k in range(dynn.n_exits - 1)]
    assert computed[-1] < computed[0]  # on these images and this network some do leave early


def test_rules_by_hand():
    """Two classes, three exits; images: sure at exit 1, sure at exit 2, never sure but most so at exit 1, tie of the last two."""
    p = torch.tensor([[0.95, 0.6, 0.8, 0.5], [0.6, 0.05, 0.3, 0.2], [0.3, 0.4, 0.6, 0.8]])
    logits = torch.stack([p, 1 - p], dim=-1).log()
    first = ConfidenceExit(0.9).decide(logits)
    assert first.exit.tolist() == [0, 1, 0, 1]
    assert first.depth.tolist() == [0, 1, 2, 2]
    assert first.label.tolist() == [0, 1, 0, 1]
    last = ConfidenceExit(0.9, "final").decide(logits)
    assert last.exit.tolist() == last.depth.tolist() == [0, 1, 2, 2]
    assert last.label.tolist() == [0, 1, 0, 0]


def test_deployed_module(dynn, sample):
    mechanism = ConfidenceExit(0.8)
    with torch.no_grad():
        labels = Deployed(dynn, mechanism)(sample[0]).argmax(dim=-1)
    assert labels.equal(mechanism.infer(dynn, sample[0]).label)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, float("nan")])
def test_threshold_out_of_range(threshold):
    with pytest.raises(ValueError, match="outside"):
        ConfidenceExit(threshold)


def test_unknown_fall_back():
    with pytest.raises(ValueError, match="unknown fall-back"):
        ConfidenceExit(0.9, "first")
