"""A small convolutional net of PyTorch on the digits: trained, quantized to integers, compared.

    pip install fewbits[torch] scikit-learn
    python examples/pytorch_cnn.py
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fewbits as fb


def train(X: torch.Tensor, y: torch.Tensor, epochs: int = 30) -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 4 * 4, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
            optimizer.step()
    return net


def main() -> None:
    X, y = load_digits(return_X_y=True)
    images = (X / 16).reshape(-1, 1, 8, 8).astype("float32")
    X_train, X_test, y_train, y_test = train_test_split(images, y, random_state=0)
    net = train(torch.from_numpy(X_train), torch.from_numpy(y_train))
    # Weights and activations become 8-bit integers, with ranges from the training images.
    q = fb.quantize(net, bits=8, calibration=X_train, example_input=X_train[:1])
    print(fb.compare(net, q, X_test, y_test, example_input=X_train[:1], max_drop=0.01))
    print(f"accuracy of the integers: {q.score(X_test, y_test):.4f}")


if __name__ == "__main__":
    main()
