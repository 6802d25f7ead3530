"""The bytes of the whole file, against what other quantizers write for the same model."""

from pathlib import Path

import pytest
from conftest import Fewbits
from models import FIXTURES

MODEL = FIXTURES / "digits" / "mlp.onnx"


# 70,189 bytes in float; ONNX Runtime writes 21,683 at 8 bits and 13,153 at 4.
@pytest.mark.parametrize("bits, limit", [(8, 20_500), (4, 12_000), (3, 9_900), (2, 7_900)])
def test_digits_mlp(fewbits: Fewbits, tmp_path: Path, bits: int, limit: int) -> None:
    out = tmp_path / "q.onnx"
    result = fewbits("quantize", MODEL, "-o", out, "--bits", bits, "--json").assert_done()
    assert out.stat().st_size <= limit
    assert result.json()["file_bytes"] == out.stat().st_size


def test_fewer_bits_make_a_smaller_file(fewbits: Fewbits, tmp_path: Path) -> None:
    sizes = []
    for bits in range(1, 9):
        out = tmp_path / f"q{bits}.onnx"
        fewbits("quantize", MODEL, "-o", out, "--bits", bits).assert_done()
        sizes.append(out.stat().st_size)
    assert sizes == sorted(set(sizes)), sizes
