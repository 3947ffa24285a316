"""Probes: right by finite differences and by brute force, on nets that are left as they were found."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from test_training import OneDevice
from torch import nn

import d2l_utils as d2l
from d2l_utils import probes
from d2l_utils.data import normalise

SHORTCUTS = {"plain": {"shortcut": None}, "A": {}, "B": {"shortcut": "B"}, "no norm": {"norm": False},
             "pre-activation": {"block": d2l.PreActResidual, "shortcut": "B"},
             "bottleneck": {"depth": 11, "block": d2l.Bottleneck, "shortcut": "B"},
             "pre-activation bottleneck": {"depth": 11, "block": d2l.PreActBottleneck, "shortcut": "B"}}


def small_net(depth=8, seed=0, **options):
    """A small net in float64 with statistics that are not those of a fresh one."""
    torch.manual_seed(seed)
    net = d2l.small_resnet(depth, width=2, **options).double()
    net(torch.randn(16, 1, 8, 8, dtype=torch.float64))
    return net


def pictures(n=6, size=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, 1, size, size, generator=generator, dtype=torch.float64),
            torch.randint(0, 10, (n,), generator=generator))


def lesioned(net, X, y):
    with d2l.lesion(net, "layer1.0", "layer2.0"):
        return net(X)


PROBES = {
    "gradient_norms": lambda net, X, y: d2l.gradient_norms(net, X, y),
    "gradient_agreement": lambda net, X, y: d2l.gradient_agreement(net, X, y, batch_size=2),
    "path_agreement": lambda net, X, y: d2l.path_agreement(net, X[0], X[1], y[0], points=4),
    "response_std": lambda net, X, y: d2l.response_std(net, X),
    "branch_share": lambda net, X, y: d2l.branch_share(net, X),
    "effective_rank": lambda net, X, y: d2l.effective_rank(net, X),
    "loss_surface": lambda net, X, y: d2l.loss_surface(net, X, y, points=2),
}


def state(net):
    """Everything that a probe must leave alone."""
    return {"modes": [module.training for module in net.modules()],
            "tensors": {name: tensor.clone() for name, tensor in net.state_dict().items()},
            "same tensors": [id(tensor) for tensor in [*net.parameters(), *net.buffers()]],
            "gradients": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
            "trained": [p.requires_grad for p in net.parameters()],
            "hooks": [len(module._forward_hooks) for module in net.modules()],
            "forwards": [vars(module).get("forward") for module in net.modules()]}


def assert_same(before, after):
    for name, tensor in before.pop("tensors").items():
        assert torch.equal(tensor, after["tensors"][name]), name
    for old, new in zip(before.pop("gradients"), after["gradients"], strict=True):
        assert (old is None and new is None) or torch.equal(old, new)
    assert all(value == after[name] for name, value in before.items())


def mixed_net():
    """A net with gradients, a frozen layer, a module in another mode than the rest, and somebody's hook."""
    net = small_net()
    F.cross_entropy(net(pictures()[0]), pictures()[1]).backward()
    net.conv1.weight.requires_grad_(False)
    net.layer2.eval()
    net.fc.register_forward_hook(lambda *_: None)
    return net


# Left as found

@pytest.mark.parametrize("name", PROBES)
def test_a_probe_leaves_the_net_as_it_found_it(name):
    net = mixed_net()
    before = state(net)
    PROBES[name](net, *pictures())
    assert_same(before, state(net))


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("where", ["conv1", "layer2.0.bn1", "fc"])
def test_a_probe_that_is_interrupted_leaves_the_net_as_it_found_it(name, where):
    def interrupt(*_):
        raise KeyboardInterrupt

    net = mixed_net()
    net.get_submodule(where).register_forward_hook(interrupt)
    before = state(net)
    with pytest.raises(KeyboardInterrupt):
        PROBES[name](net, *pictures())
    assert_same(before, state(net))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_a_lesion_ends_also_when_interrupted_and_lesions_nest(error):
    net, (X, _) = mixed_net().eval(), pictures()
    before, whole = state(net), net(X)
    with d2l.lesion(net, "layer1.0"):
        one = net(X)
        try:
            with d2l.lesion(net, "layer1.0", "layer2.0", "layer2.0"):
                assert not torch.allclose(net(X), one)
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert torch.equal(net(X), one)
        assert not torch.allclose(one, whole)
    assert torch.equal(net(X), whole)
    assert_same(before, state(net))


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_gives_the_same_twice_in_any_mode_and_without_gradients(name):
    net, (X, y) = small_net(), pictures()
    first = str(PROBES[name](net, X, y))
    with torch.no_grad():
        assert str(PROBES[name](net.eval(), X, y)) == first


# Gradients

@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", SHORTCUTS)
def test_gradients_agree_with_finite_differences(kind, train):
    net, (X, y) = small_net(**SHORTCUTS[kind]), pictures()
    weights, inputs = probes.gradients(net, X, y, train)
    net.train(train)
    for name in ["conv1.weight", "layer2.0.conv1.weight", "fc.weight"]:
        weight = net.get_parameter(name)
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        losses = []
        for sign in (1e-6, -1e-6):
            moved = copy.deepcopy(net)
            moved.get_parameter(name).data += sign * direction
            losses.append(F.cross_entropy(moved(X), y).item())
        assert (weights[name] * direction).sum().item() == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-6)
    direction = torch.randn(X.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    losses = [F.cross_entropy(copy.deepcopy(net)(X + sign * direction), y).item() for sign in (1e-6, -1e-6)]
    assert (inputs["conv1"] * direction).sum().item() == pytest.approx((losses[0] - losses[1]) / 2e-6, abs=1e-6)


def test_gradient_norms_are_those_of_backward_with_the_stream_before_each_block():
    net, (X, y) = small_net(), pictures()
    table = d2l.gradient_norms(net, X, y).set_index("layer")
    assert list(table.index) == ["conv1", *(f"layer{i}.0.conv{j}" for i in (1, 2, 3) for j in (1, 2)), "fc"]
    streams = {}
    for name in ("layer1.0", "layer2.0", "layer3.0"):
        def keep(block, inputs, name=name):
            inputs[0].retain_grad()
            streams[name] = inputs[0]

        net.get_submodule(name).register_forward_pre_hook(keep)
    F.cross_entropy(net.train()(X), y).backward()
    for name, row in table.iterrows():
        weight = net.get_parameter(f"{name}.weight")
        assert row.gradient == pytest.approx(weight.grad.norm().item())
        assert row.relative == pytest.approx(weight.grad.norm().item() / weight.norm().item())
        assert row["product"] == pytest.approx(weight.grad.norm().item() * weight.norm().item())
    for name, stream in streams.items():                    # with what flows back through the shortcut
        assert table.input[f"{name}.conv1"] == pytest.approx(stream.grad.norm().item())


def test_under_norm_a_layer_enlarged_three_times_has_a_gradient_a_third_as_long():
    net, (X, y) = small_net(), pictures()
    before = d2l.gradient_norms(net, X, y).set_index("layer").loc["layer1.0.conv1"]
    net.layer1[0].conv1.weight.data *= 3
    net.layer1[0].bn1.eps = 9e-5
    after = d2l.gradient_norms(net, X, y).set_index("layer").loc["layer1.0.conv1"]
    assert after.gradient == pytest.approx(before.gradient / 3)
    assert after["product"] == pytest.approx(before["product"])


def test_uint8_pictures_are_normalised_and_a_frozen_layer_has_a_gradient():
    data = d2l.fashion_mnist(size=14)
    X, y, net = data.X_train[:20], data.y_train[:20], d2l.small_resnet(8, width=2)
    expected = d2l.gradient_norms(net, normalise(X), y)
    net.requires_grad_(False)
    assert d2l.gradient_norms(net, X, y).equals(expected)
    assert (expected.gradient > 0).all()


def test_agreement_is_the_mean_cosine_over_all_pairs_of_batches():
    net, (X, y) = small_net(), pictures(11)
    table = d2l.gradient_agreement(net, X, y, batch_size=3).set_index("layer").cosine     # three batches, two over
    found = []
    for i in (0, 3, 6):
        tried = copy.deepcopy(net).train()
        F.cross_entropy(tried(X[i:i + 3]), y[i:i + 3]).backward()
        found.append({name: p.grad.flatten() for name, p in tried.named_parameters()})
    found = [gradient | {"all": torch.cat(list(gradient.values()))} for gradient in found]
    for layer in table.index:
        name = "all" if layer == "all" else f"{layer}.weight"
        cosines = [F.cosine_similarity(found[i][name], found[j][name], dim=0).item() for i, j in
                   [(0, 1), (0, 2), (1, 2)]]
        assert table[layer] == pytest.approx(sum(cosines) / 3)
    assert list(table.index)[-1] == "all"


def test_agreement_of_equal_batches_is_one_and_of_zero_gradients_is_zero():
    net, (X, y) = small_net(), pictures(3)
    table = d2l.gradient_agreement(net, X.repeat(2, 1, 1, 1), y.repeat(2), batch_size=3)
    assert table.cosine.tolist() == pytest.approx([1] * len(table))
    nn.init.zeros_(net.fc.weight)
    table = d2l.gradient_agreement(net, *pictures(6), batch_size=3).set_index("layer").cosine
    assert table["conv1"] == 0
    assert abs(table["fc"]) > 1e-3


def test_path_agreement_is_the_mean_cosine_of_neighbours_on_the_line():
    net, (X, y) = small_net(), pictures()
    for train in (True, False):
        points = torch.stack([X[0] + t * (X[1] - X[0]) for t in (0, 0.25, 0.5, 0.75, 1)]).requires_grad_()
        F.cross_entropy(copy.deepcopy(net).train(train)(points), y[:1].expand(5), reduction="sum").backward()
        g = points.grad.flatten(1)
        cosines = [F.cosine_similarity(g[i], g[i + 1], dim=0).item() for i in range(4)]
        assert d2l.path_agreement(net, X[0], X[1], y[0], 5, train) == pytest.approx(sum(cosines) / 4)


def test_a_linear_net_agrees_with_itself_along_a_line():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    X, _ = pictures(2, size=2)
    assert d2l.path_agreement(net, X[0], X[1], 1) == pytest.approx(1)


# Responses

def test_response_std_is_that_of_what_the_layers_give():
    net, (X, _) = small_net(), pictures()
    table = d2l.response_std(net, X, ["layer1.0", "fc"], train=False).set_index("layer")["std"]
    net.eval()
    H = net.layer1(F.relu(net.bn1(net.conv1(X))))
    assert table["layer1.0"] == pytest.approx(H.std().item())
    assert table["fc"] == pytest.approx(net(X).std().item())
    default = d2l.response_std(net, X)
    assert list(default.layer[:3]) == ["bn1", "layer1.0.bn1", "layer1.0.bn2"]
    assert default["std"].tolist() == pytest.approx([1] * 7, abs=0.01)             # that is what a fresh norm does
    assert list(d2l.response_std(small_net(norm=False), X).layer[:2]) == ["conv1", "layer1.0.conv1"]


@pytest.mark.parametrize("kind", SHORTCUTS)
def test_branch_share_is_the_branchs_variance_over_the_streams(kind):
    net, (X, _) = small_net(**SHORTCUTS[kind]), pictures()
    table = d2l.branch_share(net, X, train=False)
    net.eval()
    H = net.conv1(X)
    H = H if net.preact else F.relu(net.bn1(H))
    for row, stage in zip(table.itertuples(), net.stages, strict=True):
        block, = stage
        if net.preact:
            Z = F.relu(block.bn1(H))
            branch, stream = block.branch(Z), block.downsample(Z if isinstance(block.downsample, nn.Sequential) else H)
        elif kind == "bottleneck":
            branch = F.relu(block.bn2(block.conv2(F.relu(block.bn1(block.conv1(H))))))
            branch, stream = block.bn3(block.conv3(branch)), block.downsample(H)
        else:
            branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(H)))))
            stream = H if kind == "plain" else block.downsample(H)
        expected = [tensor.var((0, 2, 3), correction=0).mean().item() for tensor in (branch, stream)]
        assert [row.branch, row.stream, row.share] == pytest.approx([*expected, expected[0] / expected[1]])
        H = block(H)


@pytest.mark.parametrize(("H", "rank"), [
    (torch.eye(4), 4), (torch.ones(5, 3), 1), (torch.zeros(2, 2), 0), (torch.full((2, 2), math.inf), math.nan),
    (torch.diag(torch.tensor([3.0, 1.0])), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))])
def test_effective_rank_of_known_matrices(H, rank):
    net = nn.Sequential(nn.Flatten(), nn.Linear(H.shape[1], 2))
    assert d2l.effective_rank(net, H[:, None, None, :], "1") == pytest.approx(rank, rel=1e-5, nan_ok=True)


def test_effective_rank_is_that_of_what_enters_the_head_or_a_layer():
    net, (X, _) = small_net().eval(), pictures()
    H = net.layer1(F.relu(net.bn1(net.conv1(X))))
    for layer, entering in (("layer2.0", H), ("fc", net.layer3(net.layer2(H)).mean((2, 3)))):
        share = torch.linalg.svdvals(entering.detach().flatten(1))
        share = share / share.sum()
        expected = math.exp(-(share * share.clamp_min(1e-300).log()).sum())
        assert d2l.effective_rank(net, X, layer, train=False) == pytest.approx(expected)
        assert layer != "fc" or d2l.effective_rank(net, X, train=False) == pytest.approx(expected)


# Lesions

@pytest.mark.parametrize("kind", SHORTCUTS)
def test_a_lesion_is_the_net_whose_branch_gives_zero(kind):
    net, (X, _) = small_net(**SHORTCUTS[kind]).eval(), pictures()
    for name in probes.blocks_of(net):
        changed = copy.deepcopy(net)
        block = changed.get_submodule(name)
        if kind == "plain":                                 # option A's shortcut, and a branch of zeros
            wide = block.conv2.out_channels - block.conv1.in_channels
            stride = block.conv1.stride[0]
            block.forward = lambda H, s=stride, w=wide: F.pad(H[:, :, ::s, ::s], (0, 0, 0, 0, 0, w))
        else:
            *_, last = [child for key, child in block.named_children() if key != "downsample"]
            last.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        with d2l.lesion(net, name) as without:
            assert torch.allclose(without(X), changed(X))


class ScaledBranch(d2l.Residual):
    """Without norm, its last module is not called: nothing can be read there, and nothing cut."""

    def forward(self, X):
        return F.relu(0.5 * self.conv2(F.relu(self.conv1(X))) + self.downsample(X))


def test_a_module_that_is_never_called_is_named():
    net, (X, y) = small_net(norm=False, block=ScaledBranch), pictures()
    with d2l.lesion(net, "layer2.0"), pytest.raises(ValueError, match=r"layer2\.0 must end its branch in .* 'bn2'"):
        net(X)
    assert not any(module._forward_hooks for module in net.modules())
    for probe in (d2l.branch_share, lambda net, X: d2l.response_std(net, X, ["layer1.0.bn2"]),
                  lambda net, X: d2l.effective_rank(net, X, "layer1.0.bn2")):
        with pytest.raises(ValueError, match=r"layer must be one of .*, got 'layer1\.0\.bn2'"):
            probe(net, X)
    assert len(d2l.gradient_norms(net, X, y)) == 8


def test_lesions_of_all_blocks_leave_the_stem_and_the_head():
    net, (X, _) = small_net(20).eval(), pictures()
    with d2l.lesion(net, *probes.blocks_of(net)):
        H = F.relu(net.bn1(net.conv1(X)))[:, :, ::4, ::4]
        assert torch.allclose(net(X), net.fc(F.pad(H.mean((2, 3)), (0, 6))))


# Surfaces

@pytest.mark.parametrize("train", [True, False])
def test_loss_surface_is_the_loss_of_moved_nets(train):
    net, (X, y) = small_net(), pictures()
    generator = torch.Generator().manual_seed(5)
    directions = [{name: torch.randn(p.shape, generator=generator, dtype=p.dtype) for name, p in
                   net.named_parameters()} for _ in range(2)]
    table = d2l.loss_surface(net, X, y, directions, extent=0.1, points=3, train=train)
    assert list(table.index) == list(table.columns) == pytest.approx([-0.1, 0, 0.1])
    for a in table.index:
        for b in table.columns:
            moved = copy.deepcopy(net).train(train)
            for name, p in moved.named_parameters():
                p.data += a * directions[0][name] + b * directions[1][name]
            assert table.loc[a, b] == pytest.approx(F.cross_entropy(moved(X), y).item())
    batches = d2l.loss_surface(net, X, y, directions, extent=0.1, points=3, train=False, batch_size=4)
    assert train or torch.allclose(torch.tensor(batches.values), torch.tensor(table.values))


def test_directions_are_filter_normalised_and_follow_from_the_seed():
    net = small_net(norm=False)
    direction = probes.filter_normalised(net, torch.Generator().manual_seed(0))
    for name, p in net.named_parameters():
        if p.dim() > 1:
            assert torch.allclose(direction[name].flatten(1).norm(dim=1), p.flatten(1).norm(dim=1))
        else:
            assert not direction[name].any()
    again = probes.filter_normalised(net, torch.Generator().manual_seed(0))
    assert all(torch.equal(direction[name], again[name]) for name in again)
    X, y = pictures()
    one, two = (d2l.loss_surface(net, X, y, points=2, seed=seed) for seed in (0, 1))
    assert not one.equals(two)


def test_a_filter_of_zeros_does_not_move():
    net, (X, y) = small_net(zero_init=True, norm=False), pictures()
    assert d2l.loss_surface(net, X, y, points=3).notna().all(axis=None)


# Bad input

@pytest.mark.parametrize(("probe", "message"), [
    (lambda net, X, y: d2l.response_std(net, X, ["layer9.0"]), r"layer must be one of conv1, bn1, .*, got 'layer9\.0'"),
    (lambda net, X, y: d2l.effective_rank(net, X, "layer9.0"), r"layer must be one of .*, got 'layer9\.0'"),
    (lambda net, X, y: d2l.lesion(net, "conv1").__enter__(), r"layer must be one of layer1\.0, .*, got 'conv1'"),
    (lambda net, X, y: d2l.lesion(nn.Linear(1, 1), "fc").__enter__(), "net must have .* blocks, got a .* without"),
    (lambda net, X, y: d2l.branch_share(nn.Conv2d(1, 1, 1), X), "net must have .* blocks, got a .* without"),
    (lambda net, X, y: d2l.gradient_norms(net, X[0], y), r"X must be .* \(N, C, H, W\), .* got .* \(1, 8, 8\)"),
    (lambda net, X, y: d2l.loss_surface(net, X[:0], y[:0]), r"X must be .* N at least 1, got .* \(0, 1, 8, 8\)"),
    (lambda net, X, y: d2l.gradient_norms(net, X, y[:3]), r"y must have an entry for each of the 6 images, got \(3,\)"),
    (lambda net, X, y: d2l.gradient_norms(net, X, y.double()), "y must be int64 labels .*, got torch.float64"),
    (lambda net, X, y: d2l.gradient_agreement(net, X, y), "X must hold at least 2 batches of batch_size=128, got 6"),
    (lambda net, X, y: d2l.path_agreement(net, X[0], X[1:], y[0]), "start and end must be pictures of one shape"),
    (lambda net, X, y: d2l.path_agreement(net, X[0], X[1], y[0], points=1), "points at least 2, got .* 1"),
    (lambda net, X, y: d2l.loss_surface(net, X, y, [{}, {}]), "directions must be two dicts of a tensor for"),
    (lambda net, X, y: d2l.loss_surface(net, X, y, [dict(net.named_parameters())]), "directions must be two dicts"),
    (lambda net, X, y: d2l.loss_surface(net, X, y, [{name: p[:1] for name, p in net.named_parameters()}] * 2),
     "directions must be two dicts"),
    (lambda net, X, y: d2l.loss_surface(net, X, y, points=0), "points must be a whole number from 1, got 0"),
    (lambda net, X, y: d2l.loss_surface(net, X, y, seed=-1), "seed must be a whole number from 0, got -1"),
    (lambda net, X, y: d2l.loss_surface(net, X, y, seed=0.5), "seed must be a whole number from 0, got 0.5"),
])
def test_bad_input_gives_one_clear_sentence_and_a_net_left_alone(probe, message):
    net = mixed_net()
    before = state(net)
    with pytest.raises(ValueError, match=message) as error:
        probe(net, *pictures())
    assert "\n" not in str(error.value)
    assert_same(before, state(net))


def test_one_picture_is_enough():
    X, y = pictures(1)
    for net, train in ((small_net(), False), (small_net(), True), (small_net(norm=False), True)):
        assert (d2l.gradient_norms(net, X, y, train).gradient > 0).all()


# Devices

@pytest.mark.parametrize("options", SHORTCUTS.values(), ids=SHORTCUTS)
def test_probes_stay_on_the_nets_device(options):
    net, (X, y) = small_net(**options).to("meta"), [tensor.to("meta") for tensor in pictures()]
    with OneDevice():
        weights, inputs = probes.gradients(net, X, y)
        for _, output in probes.responses(net, X, ["layer3.0"]).values():
            assert output.device.type == "meta"
        direction = probes.filter_normalised(net, torch.Generator())
        with d2l.lesion(net, *probes.blocks_of(net)):
            net(X)
    assert {tensor.device.type for tensors in (weights, inputs, direction) for tensor in tensors.values()} == {"meta"}
