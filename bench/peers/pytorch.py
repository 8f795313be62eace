"""Training steps of PyTorch. Arguments: the network (paper or stack), then channels_first, channels_last or compiled."""

import sys

import torch
from torch import nn

from peer import BATCH, CLASSES, SIZE, THREADS, serve


def paper():
    """lib/nn/networks/paper.ts."""
    layers = []
    channels = 3
    for filters, dropout in ((64, 0.2), (128, 0.3), (256, 0.4)):
        for _ in range(2):
            norm = nn.BatchNorm2d(filters, eps=1e-3, momentum=0.1)
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True), norm]
            channels = filters
        layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
    flat = channels * (SIZE // 8) ** 2
    norm = nn.BatchNorm1d(256, eps=1e-3, momentum=0.1)
    head = [nn.Flatten(), nn.Linear(flat, 256), nn.ReLU(inplace=True), norm, nn.Dropout(0.5), nn.Linear(256, CLASSES)]
    return nn.Sequential(*layers, *head)


def stack():
    """bench/nn/networks.ts."""
    layers = []
    channels = 3
    for _ in range(6):
        norm = nn.BatchNorm2d(64, eps=1e-3, momentum=0.01)
        layers += [nn.Conv2d(channels, 64, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True)]
        channels = 64
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def parameter_groups(model, l2):
    """Kernels of convolutions with their penalty, whose gradient is 2 l2 w; the rest without."""
    kernels = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    known = {id(kernel) for kernel in kernels}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [{"params": kernels, "weight_decay": 2 * l2}, {"params": rest}]


def main(network, form):
    torch.set_num_threads(THREADS)
    torch.set_float32_matmul_precision("highest")
    layout = torch.contiguous_format if form == "channels_first" else torch.channels_last
    model = {"paper": paper, "stack": stack}[network]().to(memory_format=layout).train()
    groups = parameter_groups(model, 1e-4 if network == "paper" else 0)
    optimizer = torch.optim.Adam(groups, lr=1e-3, eps=1e-7, fused=True)
    forward = torch.compile(model) if form == "compiled" else model
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=layout)
    labels = torch.randint(CLASSES, (BATCH,))

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    serve(f"PyTorch {torch.__version__}", step)


main(*sys.argv[1:])
