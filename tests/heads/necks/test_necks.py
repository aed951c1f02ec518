"""FPN and BiFPN against torchvision's and effdet's on equal weights, and their sizes."""

import pytest
import torch
from torch import Tensor, nn

from heads.contract import HeadError
from heads.necks.bifpn import BiFPN, BiFPNLayer
from heads.necks.fpn import FPN
from tests.heads.pyramids import SWINV2_CHANNELS, parameter_count

# float64 shows that two definitions are the same; what is left is the order of additions.
TOLERANCE = 1e-12


def maps_of(channels: list[int], finest_hw: tuple[int, int], seed: int = 0) -> list[Tensor]:
    """float64 maps whose sizes halve, rounded up: odd sizes as unpadded images leave them."""
    generator = torch.Generator().manual_seed(seed)
    maps, (height, width) = [], finest_hw
    for each in channels:
        maps.append(torch.randn(2, each, height, width, generator=generator, dtype=torch.float64))
        height, width = (height + 1) // 2, (width + 1) // 2
    return maps


def channels_of(model: str) -> list[int]:
    return [SWINV2_CHANNELS[model] << i for i in range(4)]


def redraw(module: nn.Module, seed: int) -> nn.Module:
    """Random values everywhere: initial biases of 0 and weights of 1 would hide a swap."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64) * 0.4 - 0.1)
    return module


def assert_same_outputs_and_gradients(
    ours: nn.Module, theirs: nn.Module, maps: list[Tensor], call_theirs
) -> None:
    grads = []
    outputs = []
    for module, call in ((ours, ours), (theirs, call_theirs)):
        inputs = [x.clone().requires_grad_() for x in maps]
        outs = call(inputs)
        sum((out * out.detach().cos()).sum() for out in outs).backward()
        outputs.append(outs)
        grads.append([x.grad for x in inputs] + [parameter.grad for parameter in module.parameters()])
    assert len(outputs[0]) == len(outputs[1])
    for a, b in zip(*outputs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.oracle
@pytest.mark.parametrize("finest_hw", [(16, 24), (13, 21), (9, 8)])
def test_fpn_equals_torchvision(finest_hw: tuple[int, int]) -> None:
    ops = pytest.importorskip("torchvision.ops")
    channels = [6, 12, 24, 48]
    theirs = ops.FeaturePyramidNetwork(channels, 8, ops.feature_pyramid_network.LastLevelMaxPool()).double()
    redraw(theirs, 1)
    ours = FPN(channels, 8).double()
    source = iter(theirs.state_dict().values())
    ours.load_state_dict({name: next(source) for name in ours.state_dict()})
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]

    def call(maps: list[Tensor]) -> list[Tensor]:
        return list(theirs({f"p{i + 2}": x for i, x in enumerate(maps)}).values())

    assert_same_outputs_and_gradients(ours, theirs, maps_of(channels, finest_hw), call)


@pytest.mark.oracle
@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("finest_hw", [(32, 48), (37, 50)])
def test_bifpn_layer_equals_effdet(levels: int, finest_hw: tuple[int, int]) -> None:
    effdet = pytest.importorskip("effdet.efficientdet")
    config = pytest.importorskip("effdet.config.fpn_config")
    width = 8
    maps = maps_of([width] * levels, finest_hw)
    sizes = [tuple(x.shape[2:]) for x in maps]
    theirs = effdet.BiFpnLayer(
        feature_info=[{"num_chs": width, "size": size} for size in sizes],
        feat_sizes=dict(enumerate(sizes, start=2)),
        fpn_config=config.bifpn_config(2, 1 + levels, weight_method="fastattn"),
        fpn_channels=width,
        num_levels=levels,
        pad_type="",
        norm_layer=None,
        act_layer=nn.SiLU,
        separable_conv=False,
        redundant_bias=True,
    ).double()
    redraw(theirs, 2)
    ours = BiFPNLayer(width, levels, "none").double()
    # effdet lists its nodes in the order they run: coarse to fine, then fine to coarse.
    nodes = [*reversed(ours.top_down), *ours.bottom_up]
    for node, fnode in zip(nodes, theirs.fnode, strict=True):
        node.load_state_dict(
            {
                "weights": fnode.combine.edge_weights,
                "conv.weight": fnode.after_combine.conv.conv.weight,
                "conv.bias": fnode.after_combine.conv.conv.bias,
            }
        )
    assert any((node.weights < 0).any() for node in nodes), "no cut-off weight is compared"
    aligned = nn.ModuleList(nodes)  # parameters in effdet's order

    class Ours(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nodes = aligned

        def forward(self, inputs: list[Tensor]) -> list[Tensor]:
            return ours(inputs)

    # effdet appends to the list it is given.
    assert_same_outputs_and_gradients(Ours(), theirs, maps, lambda inputs: theirs(list(inputs)))


def test_bifpn_equals_the_formulas_written_out() -> None:
    """Laterals, extra level, two layers: the module against its written definition."""
    channels, width = [6, 8, 24, 48], 8  # the second level has this width already
    neck = redraw(BiFPN(channels, width, layers=2, extra_levels=1, norm="none").double(), 3)
    maps = maps_of(channels, (19, 26))
    pool, resize = nn.functional.max_pool2d, nn.functional.interpolate

    def node(fusion: nn.Module, *inputs: Tensor) -> Tensor:
        weights = fusion.weights.clamp(min=0)
        mean = sum(weight * x for weight, x in zip(weights, inputs, strict=True)) / (weights.sum() + 1e-4)
        return fusion.conv(mean * mean.sigmoid())

    x = [*maps, pool(maps[-1], 3, 2, 1)]
    assert isinstance(neck.laterals[1], nn.Identity)
    x = [x[i] if i == 1 else neck.laterals[i][0](x[i]) for i in range(5)]
    for layer in neck.layers:
        td = {4: x[4]}
        for i in (3, 2, 1, 0):
            td[i] = node(layer.top_down[i], x[i], resize(td[i + 1], size=x[i].shape[2:], mode="nearest"))
        out = {0: td[0]}
        for i in (1, 2, 3):
            out[i] = node(layer.bottom_up[i - 1], x[i], td[i], pool(out[i - 1], 3, 2, 1))
        out[4] = node(layer.bottom_up[3], x[4], pool(out[3], 3, 2, 1))
        x = [out[i] for i in range(5)]
    for a, b in zip(neck(maps), x, strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE, atol=TOLERANCE)


# The figures printed in the papers' reconstruction, in millions, and the exact integers they round.
FPN_PARAMETERS = {
    "t": (2_729_984, 2.730),
    "b": (2_852_864, 2.853),
    "l": (3_098_624, 3.099),
    "g": (4_327_424, 4.327),
}


@pytest.mark.parametrize("model", FPN_PARAMETERS)
def test_fpn_parameters(model: str) -> None:
    exact, printed = FPN_PARAMETERS[model]
    with torch.device("meta"):
        assert parameter_count(FPN(channels_of(model))) == exact
    assert round(exact / 1e6, 3) == printed


BIFPN_PRINTED = {
    **{
        ("b", k): v
        for k, v in enumerate([5.41, 10.13, 14.85, 19.57, 24.29, 29.01, 33.73, 38.45, 43.18], start=1)
    },
    ("t", 9): 43.05,
    ("l", 5): 24.74,
    ("g", 5): 26.62,
}


@pytest.mark.parametrize(("model", "layers"), BIFPN_PRINTED)
def test_bifpn_parameters(model: str, layers: int) -> None:
    channels = channels_of(model)
    with torch.device("meta"):
        plain = parameter_count(BiFPN(channels, layers=layers, extra_levels=1, norm="none"))
        shipped = parameter_count(BiFPN(channels, layers=layers, extra_levels=1))
    laterals = [c for c in [*channels, channels[-1]] if c != 256]
    assert plain == 4_720_659 * layers + sum(c * 256 + 256 for c in laterals)
    assert round(plain / 1e6, 2) == BIFPN_PRINTED[model, layers]
    assert shipped == plain + 512 * (8 * layers + len(laterals))  # a GroupNorm each


def test_bifpn_layer_parameters() -> None:
    assert parameter_count(BiFPNLayer(256, 5, "none")) == 4_720_659
    assert parameter_count(BiFPNLayer(256, 4, "none")) == 6 * 590_080 + 14


def test_bifpn_refuses_another_norm() -> None:
    with pytest.raises(HeadError, match=r"'bn'.*gn, none"):
        BiFPN([8, 16], 8, layers=1, norm="bn")
