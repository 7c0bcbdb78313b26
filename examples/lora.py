"""Adapt one layer to digits in chained low-rank blocks, and hold five runs against the theorems.

Needs the extra: pip install 'surefoot[llm]'. About ten seconds on one core.
"""

import torch
from peft import LoraConfig, get_peft_model
from sklearn.datasets import load_digits

from surefoot import Record
from surefoot.lora import ChainOfLora, RacConfig, probe
from surefoot.lora.guarantee import Constants, certificates

BLOCKS, SEEDS = 60, 5

pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels / 16), torch.tensor(labels)
# The Hessian of a softmax is at most 1/2, so this is the smoothness of the loss in the weight, exactly.
L = float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1]) / 2


def train(seed: int) -> ChainOfLora:
    """A rank-4 chain from zero weights; one block is one step of plain SGD on all images."""
    base = torch.nn.Sequential(torch.nn.Linear(64, 10, bias=False)).double()
    torch.nn.init.zeros_(base[0].weight)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["0"]))
    chain = ChainOfLora(model, RacConfig(steps_per_block=1, seed=seed))
    optimizer = torch.optim.SGD(chain.param_groups(gamma=1 / L), lr=1.0)

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(x), y)

    for _ in range(BLOCKS):
        gradient = probe.full_gradient(chain, loss)
        chain.observe(loss=loss().item(), grad_norm2=probe.grad_norm2(gradient))
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        chain.step(optimizer)
    chain.observe(loss=loss().item())
    return chain


def main() -> None:
    """Five chains of different seeds: what holds on average over the sketches needs several."""
    chains = [train(seed) for seed in range(SEEDS)]
    for chain in chains[:1]:
        right = (chain.model(x).argmax(1) == y).double().mean()
        print(f"seed 0: {right:.1%} of the digits right after {chain.block} blocks of rank 4\n")
    record = Record.concat(chain.record for chain in chains)
    for certificate in certificates(record, Constants(L), f_star=0.0):  # a cross-entropy is above 0
        print(certificate.summary(), end="\n\n")


if __name__ == "__main__":
    main()
