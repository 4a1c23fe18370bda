from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from focalis.errors import ModelError
from focalis.networks import DenseNetwork, Network, build_network, transfer

CUBES = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
SLICES = ((1, 2, 2), (1, 2, 2), (2, 2, 2))


def dense(strides=CUBES, inputs: int = 1, outputs: int = 3, **changes: object) -> DenseNetwork:
    config = replace(build_network("dense", strides, 1, 2).config, **changes)  # type: ignore[arg-type]
    network = DenseNetwork(config, strides, inputs, outputs)
    for layer in network.modules():  # statistics as of a network that was trained
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    return network.eval()


def features(network: DenseNetwork, image: Tensor) -> Tensor:
    """What the output layer is given."""
    found = []
    handle = network.output[-1].register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.no_grad():
        network(image)
    handle.remove()
    return found[0]


def without_borders(network: Network) -> Network:
    """Images go on round, so that one that is constant has no border."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d) and max(layer.padding) > 0:
            layer.padding_mode = "circular"
            layer._reversed_padding_repeated_twice = [1] * 6
    return network


def test_all_but_the_output_layer_is_taken() -> None:
    start, network = dense(outputs=4), dense(outputs=2)
    fresh = network.output[-1].weight.clone()

    report = transfer(start.state_dict(), network)

    assert str(report) == "102 of 104 tensors; fresh: output.2.weight, output.2.bias"
    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(features(network, image), features(start, image))
    torch.testing.assert_close(network.output[-1].weight, fresh)


def test_an_output_layer_of_the_same_size_stays_fresh_as_well() -> None:
    start, network = dense(), dense()
    fresh = network.output[-1].weight.clone()

    transfer(start.state_dict(), network)

    torch.testing.assert_close(network.output[-1].weight, fresh)


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_an_output_layer_of_one_lesion_serves_several_labels_alike(labels: int) -> None:
    start, network = dense(outputs=2), dense(outputs=1 + labels)

    report = transfer(start.state_dict(), network, with_heads=True)

    assert report.taken == report.total
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        background, lesion = start(image).softmax(1)[0]
        found = network(image).softmax(1)[0]
    torch.testing.assert_close(found[0], background)
    torch.testing.assert_close(found[1:], (lesion / labels).expand(labels, -1, -1, -1))


@pytest.mark.parametrize("channels", [2, 3])
def test_the_same_image_in_every_channel_gives_the_same_features(channels: int) -> None:
    start, network = dense(), dense(inputs=channels)

    report = transfer(start.state_dict(), network)

    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(
        features(network, image.expand(1, channels, 16, 16, 16)), features(start, image), atol=1e-4, rtol=1e-4
    )
    assert report.taken == 102
    assert report.adapted == (f"stem.weight from 32 x 1 x 3 x 3 x 3 to 32 x {channels} x 3 x 3 x 3",)


def test_channels_of_the_start_are_summed_for_a_network_of_one() -> None:
    start, network = dense(inputs=2), dense()

    transfer(start.state_dict(), network)

    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(
        features(network, image), features(start, image.expand(1, 2, 16, 16, 16)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [(CUBES, SLICES), (SLICES, CUBES), (CUBES, ((1, 1, 2),) * 3), (((1, 1, 2),) * 3, CUBES)],
)
def test_other_strides_keep_the_response_to_a_constant_image(before, after) -> None:
    """Where the start's steps up are even: uneven ones leave a pattern, whose period is that of the stride."""
    start, network = without_borders(dense(before)), without_borders(dense(after))
    for up in start.ups:
        up[-1].weight.data[:] = up[-1].weight.data.mean((2, 3, 4), keepdim=True)

    report = transfer(start.state_dict(), network)

    image = torch.full((1, 1, 16, 16, 16), 0.7)
    torch.testing.assert_close(features(network, image), features(start, image), atol=1e-4, rtol=1e-4)
    assert report.taken == 102
    assert any(line.startswith("downs.1.2.weight from 64 x 64 x ") for line in report.adapted)


def test_a_step_up_that_no_longer_doubles_an_axis_gives_the_mean() -> None:
    start, network = dense(CUBES), dense(SLICES)

    transfer(start.state_dict(), network)

    given = torch.randn(1, 64, 3, 4, 5)
    up, smaller = start.ups[-1][-1], network.ups[-1][-1]
    pairs = up(given).unflatten(2, (3, 2)).mean(3)
    torch.testing.assert_close(smaller(given), pairs)


def test_strides_channels_and_labels_may_differ_at_once() -> None:
    network = dense(SLICES, inputs=2, outputs=5)

    report = transfer(dense().state_dict(), network)

    assert (report.taken, report.total) == (102, 104)
    assert network(torch.randn(1, 2, 8, 16, 16)).shape == (1, 5, 8, 16, 16)


@pytest.mark.parametrize(
    "changes",
    [{"growth": (32, 64, 128)}, {"growth": (20, 32, 64)}, {"widths": (None, 96, 160)}, {"up": (8, 48, 64)}],
)
def test_a_wider_network_starts_with_the_same_features(changes: dict[str, tuple[int, ...]]) -> None:
    start, network = dense(), dense(**changes)

    report = transfer(start.state_dict(), network)

    image = torch.randn(1, 1, 16, 16, 16)
    torch.testing.assert_close(features(network, image)[:, :8], features(start, image), atol=1e-4, rtol=1e-4)
    assert report.taken == 102
    assert report.adapted


def test_what_a_wider_network_adds_can_learn() -> None:
    network = dense(growth=(32, 64, 128))
    transfer(dense().state_dict(), network)

    network(torch.randn(1, 1, 16, 16, 16)).sum().backward()

    kernel = network.blocks[0].units[1][2].weight
    assert kernel[:16, 48:].abs().max() == 0  # the channels that were added
    assert kernel.grad[:16, 48:].abs().max() > 0


def test_a_narrower_network_takes_the_first_channels_of_each_layer() -> None:
    start, network = dense(), dense(growth=(8, 32, 64))

    report = transfer(start.state_dict(), network)

    ours, theirs = (one.blocks[0].units[1][2].weight for one in (network, start))
    torch.testing.assert_close(ours, theirs[:8, [*range(40)]])
    assert report.taken == 102


def test_weights_in_half_precision_are_taken() -> None:
    start, network = dense(), dense()
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in start.state_dict().items()
    }

    transfer(state, network)

    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    torch.testing.assert_close(network.stem.weight, start.stem.weight.half().float())


def test_a_unet_takes_a_unet() -> None:
    start, network = build_network("unet", CUBES, 1, 2), build_network("unet", CUBES, 3, 4)

    report = transfer(start.state_dict(), network)

    assert report.taken == report.total - len(network.heads()) * 2
    assert len(report.adapted) == 1


def test_weights_of_another_kind_of_network_are_refused() -> None:
    network = dense()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    with pytest.raises(
        ModelError, match=r"another network: the start lacks .*stem\.weight.*the network has no "
    ):
        transfer(build_network("unet", CUBES, 1, 2).state_dict(), network)

    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name])


def test_another_number_of_stages_is_refused_with_the_layers_that_differ() -> None:
    with pytest.raises(ModelError, match=r"the network has no .*downs\.2.*as many stages"):
        transfer(dense().state_dict(), dense(CUBES[:2], units=(2, 2)))


def test_weights_that_hardly_fit_are_refused_with_both_shapes() -> None:
    state = {name: torch.zeros(2, *tensor.shape) for name, tensor in dense().state_dict().items()}

    with pytest.raises(
        ModelError, match=r"fit 0 of the network's 104 tensors; .*stem\.weight \(2 x 32 x 1 x"
    ):
        transfer(state, dense())
