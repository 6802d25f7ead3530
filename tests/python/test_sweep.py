"""The page of `fewbits sweep --report` says what the JSON says."""

from html import unescape
from pathlib import Path

from conftest import Fewbits
from models import FIXTURES
from test_demo import REMOTE


def test_page(fewbits: Fewbits, tmp_path: Path) -> None:
    digits, page = FIXTURES / "digits", tmp_path / "page.html"
    command = ["sweep", digits / "mlp.onnx", "--data", digits / "test.npz", "--bits", "2,4,8"]
    result = fewbits(*command, "--report", page, "--json").assert_done().json()
    text = unescape(page.read_text(encoding="utf-8"))
    assert REMOTE.search(text) is None and "<script" not in text
    assert result["verdict"] in text
    for measured in (result["float"], *result["points"]):
        assert f"{measured['metric']:.4f}" in text
        assert f"{measured['file_bytes']:,}" in text
    for note in result["notes"]:
        assert note in text
    for fact in ("cpu", "system", "fewbits"):
        assert result["environment"][fact] in text
    # A second run keeps the first.
    before = page.read_bytes()
    fewbits(*command, "--report", page).assert_refused(1)
    assert page.read_bytes() == before
