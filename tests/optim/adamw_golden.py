"""Writes adamw_golden.h: weights of torch.optim.AdamW (float64) on a small made-up problem.

Needs torch (any recent version; made with the one that the header names):
    python3 tests/optim/adamw_golden.py > tests/optim/adamw_golden.h
"""

import math

import torch

STEPS, MATRIX, BIAS = 6, 12, 5
LEARNING_RATES = [1e-3, 2e-3, 3e-3, 2e-3, 1e-3, 5e-4]


def initial(index):
    return math.cos(0.7 * index)


def gradient(step, index):
    return math.sin(1.3 * index + step) * (0.5 if index % 3 else 20.0)


def array(name, values):
    lines = ",\n".join("    " + ", ".join(f"{v:.17g}" for v in values[i : i + 4]) for i in range(0, len(values), 4))
    return f"inline constexpr double {name}[] = {{\n{lines}}};"


def main():
    matrix = torch.nn.Parameter(torch.tensor([initial(i) for i in range(MATRIX)], dtype=torch.float64))
    bias = torch.nn.Parameter(torch.tensor([initial(MATRIX + i) for i in range(BIAS)], dtype=torch.float64))
    optimizer = torch.optim.AdamW(
        [{"params": [matrix], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        eps=1e-8,
    )
    weights = []
    for step in range(1, STEPS + 1):
        matrix.grad = torch.tensor([gradient(step, i) for i in range(MATRIX)], dtype=torch.float64)
        bias.grad = torch.tensor([gradient(step, MATRIX + i) for i in range(BIAS)], dtype=torch.float64)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATES[step - 1]
        optimizer.step()
        weights += matrix.tolist() + bias.tolist()
    print(f"// Made by tests/optim/adamw_golden.py with torch {torch.__version__.split('+')[0]}.")
    print("#pragma once\n\nnamespace tessera::adamw_golden {\n")
    print(f"inline constexpr int kSteps = {STEPS}, kMatrix = {MATRIX}, kBias = {BIAS};")
    inputs = [initial(i) for i in range(MATRIX + BIAS)]
    gradients = [gradient(s, i) for s in range(1, STEPS + 1) for i in range(MATRIX + BIAS)]
    print(array("kLearningRates", LEARNING_RATES))
    print("// [matrix, then bias]")
    print(array("kInitial", inputs))
    print("// [step][matrix, then bias]")
    print(array("kGradients", gradients))
    print("// After each step. [step][matrix, then bias]; the matrix decays by 0.1, the bias does not.")
    print(array("kWeights", weights))
    print("\n}  // namespace tessera::adamw_golden")


if __name__ == "__main__":
    main()
