"""`fewbits demo` tells the notebook's story."""

import re
from pathlib import Path

import numpy as np
from conftest import Fewbits
from models import NOTEBOOK, folder_bytes, load_rows, open_session

# A link or an embedded resource that would need the network. An SVG's name space does not.
REMOTE = re.compile(
    r"""(?:src|href|action|data)\s*=\s*["']?\s*(?:https?:)?//"""
    r"""|url\(\s*["']?\s*(?:https?:)?//|@import|fetch\(""",
    re.IGNORECASE,
)


def test_story(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = fewbits("demo", "--out", out).assert_done()
    assert result.out.count("0.855") >= 2, result.report()
    models, pages = sorted(out.glob("*.onnx")), sorted(out.glob("*.html"))
    assert models and pages, folder_bytes(out).keys()

    x, y = load_rows(NOTEBOOK / "test.npz")
    for model in models:
        session = open_session(model)
        labels = session.run(None, {session.get_inputs()[0].name: x})[0]
        assert np.mean(labels == y) == 0.855, model.name

    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "0.855" in text
        assert REMOTE.search(text) is None, REMOTE.search(text)


def test_a_second_run_keeps_the_first(fewbits: Fewbits, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    fewbits("demo", "--out", out).assert_done()
    before = folder_bytes(out)
    fewbits("demo", "--out", out).assert_refused()
    assert folder_bytes(out) == before
    fewbits("demo", "--out", out, "--force").assert_done()


def test_models_do_not_depend_on_the_run(fewbits: Fewbits, tmp_path: Path) -> None:
    runs = []
    for name in ("first", "second"):
        fewbits("demo", "--out", tmp_path / name).assert_done()
        runs.append({p.name: p.read_bytes() for p in (tmp_path / name).glob("*.onnx")})
    assert runs[0] == runs[1]


def test_nothing_is_written_without_out(fewbits: Fewbits, tmp_path: Path) -> None:
    fewbits("demo", cwd=tmp_path).assert_done()
    assert folder_bytes(tmp_path) == {}
