"""Lowered classical models answer as ONNX Runtime does for the originals.

Every model goes through the example `lower_ml` (FEWBITS_LOWER_ML, or built here); ONNX Runtime
runs both files: labels must be equal, floats agree to 1e-6, and no `ai.onnx.ml` node may remain.
"""

import os
import pathlib
import subprocess

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto as T
from onnx import helper as h

REPO = pathlib.Path(__file__).resolve().parents[2]
CASES = pathlib.Path(os.environ.get("FEWBITS_CASES", REPO.parent / "shared" / "cases"))
ML = "ai.onnx.ml"
RNG = np.random.default_rng(7)
OPSETS = [13, 17, 18, 19, 21, 22]
X = np.concatenate([RNG.normal(size=(61, 4)), np.zeros((2, 4)), -np.ones((1, 4))]).astype(np.float32)


@pytest.fixture(scope="session")
def lower(tmp_path_factory):
    program = os.environ.get("FEWBITS_LOWER_ML")
    if program is None:
        build = ["cargo", "build", "--release", "-p", "fewbits-onnx", "--example", "lower_ml"]
        subprocess.run(build, cwd=REPO, check=True)
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
        program = target / "release" / "examples" / "lower_ml"
    folder = tmp_path_factory.mktemp("lower")

    def run(model):
        """The lowered model, and what the program printed."""
        source, out = folder / "in.onnx", folder / "out.onnx"
        source.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        done = subprocess.run([program, source, out], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return out.read_bytes(), done.stdout

    return run


def answers(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, feeds)
    return {o.name: v for o, v in zip(session.get_outputs(), outputs)}


def as_tensor(value):
    """ZipMap's list of maps as the plain tensor."""
    if isinstance(value, list):
        return np.array([list(row.values()) for row in value], np.float32)
    return value


def check_model(proto, outputs):
    """ONNX's own checker, with the outputs' real shapes: some models declare none, or wrong ones."""
    proto = onnx.load_from_string(proto.SerializeToString())
    for output in proto.graph.output:
        shape = output.type.tensor_type.shape
        del shape.dim[:]
        shape.SetInParent()
        for _ in outputs[output.name].shape:
            shape.dim.add()
    onnx.checker.check_model(proto, full_check=True)


def assert_same(lower, model, feeds, leaves=()):
    before = model if isinstance(model, bytes) else model.SerializeToString()
    lowered, printed = lower(before)
    proto = onnx.load_from_string(lowered)
    kept = {n.op_type for n in proto.graph.node if n.domain == ML}
    assert kept == set(leaves), printed
    domains = [o.domain for o in proto.opset_import]
    assert len(domains) == len(set(domains)) and (ML in domains) == bool(leaves)
    expected, got = answers(before, feeds), answers(lowered, feeds)
    check_model(proto, got)
    assert list(expected) == list(got)
    for name, value in expected.items():
        value = as_tensor(value)
        assert got[name].dtype == value.dtype and got[name].shape == value.shape, name
        if value.dtype.kind == "f":
            np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], value, err_msg=name)
    return proto


NP_TYPES = {np.dtype(np.float32): T.FLOAT, np.dtype(np.float64): T.DOUBLE,
            np.dtype(np.int64): T.INT64, np.dtype(np.int32): T.INT32}


def elem_type(array):
    return NP_TYPES.get(array.dtype, T.STRING)


def one_node(op, feeds, outputs, opset=17, ml=3, nodes=(), initializers=(), **attributes):
    """A model of one ml node that reads all feeds, and of the nodes after it."""
    inputs = [h.make_tensor_value_info(n, elem_type(v), [None, *v.shape[1:]]) for n, v in feeds.items()]
    first = h.make_node(op, [*feeds, *[i.name for i in initializers if i.name.startswith("arg")]],
                        list(outputs), domain=ML, **attributes)
    values = [h.make_tensor_value_info(n, t, None) for n, t in outputs.items()]
    graph = h.make_graph([first, *nodes], "g", inputs, values, list(initializers))
    imports = [h.make_opsetid(ML, ml)] + ([h.make_opsetid("", opset)] if opset else [])
    return h.make_model(graph, opset_imports=imports, ir_version=min(10, 8 if opset < 19 else 10))


def check_node(lower, op, x, out_type, opset=17, leaves=(), **attributes):
    feeds = x if isinstance(x, dict) else {"x": x}
    model = one_node(op, feeds, {"y": out_type}, opset, **attributes)
    return assert_same(lower, model, feeds, leaves)


LABELS = {
    "numbers": lambda n: {"classlabels_ints": list(range(n))},
    "others": lambda n: {"classlabels_ints": [3, 7, -2, 9][:n]},
    "strings": lambda n: {"classlabels_strings": ["no", "yes", "é", "d"][:n]},
}


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("opset", [13, 22])
def test_linear_classifier(lower, rows, labels, transform, opset):
    coefficients = RNG.normal(size=(rows, 4)).astype(np.float32)
    if rows == 2:
        coefficients[0] = -coefficients[1]
    model = one_node(
        "LinearClassifier", {"x": X},
        {"label": T.STRING if labels == "strings" else T.INT64, "p": T.FLOAT}, opset,
        coefficients=coefficients.ravel().tolist(), intercepts=[0.0] * rows, multi_class=0,
        post_transform=transform, **LABELS[labels](max(rows, 2)),
    )
    proto = assert_same(lower, model, {"x": X})
    weights = {i.name: i for i in proto.graph.initializer}
    products = [n for n in proto.graph.node if n.op_type == "MatMul"]
    assert list(weights[products[0].input[1]].dims) == [4, rows]
    if labels == "strings":
        assert proto.graph.node[-1].op_type == "Gather"


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("opset", [13, 22])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("one_row", [False, True])
def test_mirrored_columns_are_stored_as_one(lower, labels, transform, opset, dtype, one_row):
    x = np.concatenate([4 * RNG.normal(size=(61, 20)), np.zeros((2, 20))]).astype(dtype)
    row = RNG.normal(size=20).astype(np.float32)
    for intercept, columns in [(0.0, 1), (0.25, 1), (None, 2)]:
        both = [-0.25, 0.5] if intercept is None else [-intercept, intercept]
        model = one_node(
            "LinearClassifier", {"x": x},
            {"label": T.STRING if labels == "strings" else T.INT64, "p": T.FLOAT}, opset,
            coefficients=[*(-row).tolist(), *row.tolist()], intercepts=both, multi_class=0,
            post_transform=transform, **LABELS[labels](2),
        )
        feeds = {"x": x}
        if one_row:
            feeds = {"x": x[0]}
            model.graph.input[0].CopyFrom(
                h.make_tensor_value_info("x", NP_TYPES[np.dtype(dtype)], [20]))
        proto = assert_same(lower, model, feeds)
        weights = {i.name: i for i in proto.graph.initializer}
        [product] = [n for n in proto.graph.node if n.op_type in ("MatMul", "Gemm")]
        assert list(weights[product.input[1]].dims) == [20, columns]


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_linear_classifier_of_other_inputs(lower, dtype):
    x = (3 * X).astype(dtype)
    model = one_node("LinearClassifier", {"x": x}, {"label": T.INT64, "p": T.FLOAT},
                     coefficients=[1.0, -2, 3, 4, 5, 6, 7, 8], intercepts=[0.5, 1.0],
                     classlabels_ints=[0, 1])
    assert_same(lower, model, {"x": x})


def test_linear_classifier_without_labels(lower):
    model = one_node("LinearClassifier", {"x": X}, {"label": T.INT64, "p": T.FLOAT},
                     coefficients=[1.0, -2, 3, 4], intercepts=[0.5], post_transform="LOGISTIC")
    assert_same(lower, model, {"x": X})


def test_one_row_of_features(lower):
    feeds = {"x": X[0]}
    model = one_node("LinearClassifier", feeds, {"label": T.INT64, "p": T.FLOAT},
                     coefficients=[1.0, -2, 3, 4, 5, 6, 7, 8], intercepts=[0.5, 1.0],
                     classlabels_ints=[0, 1])
    model.graph.input[0].CopyFrom(h.make_tensor_value_info("x", T.FLOAT, [4]))
    assert_same(lower, model, feeds)


@pytest.mark.parametrize("transform", ["SOFTMAX_ZERO", "PROBIT"])
def test_transforms_without_a_standard_operator_stay(lower, transform):
    model = one_node("LinearClassifier", {"x": X}, {"label": T.INT64, "p": T.FLOAT},
                     coefficients=[1.0] * 8, intercepts=[0.5, 1.0], classlabels_ints=[0, 1],
                     post_transform=transform)
    assert_same(lower, model, {"x": X}, ["LinearClassifier"])


def test_a_model_that_imports_only_ml_operators(lower):
    model = one_node("LinearRegressor", {"x": X}, {"y": T.FLOAT}, opset=0, coefficients=[1.0] * 4)
    proto = assert_same(lower, model, {"x": X})
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 13)]


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("intercepts", [True, False])
def test_linear_regressor(lower, targets, transform, intercepts):
    extra = {"intercepts": RNG.normal(size=targets).tolist()} if intercepts else {}
    check_node(lower, "LinearRegressor", X, T.FLOAT, targets=targets, post_transform=transform,
               coefficients=RNG.normal(size=4 * targets).tolist(), **extra)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
@pytest.mark.parametrize("offset,scale", [
    ([0.5, 1.5, -2, 3], [0.1, 2, 3, 4]), ([0.25], [3.0]), ([0.0] * 4, [1.0, 2, 3, 4]),
    ([1.0, 2, 3, 4], [1.0] * 4), ([0.0], [1.0]),
])
def test_scaler(lower, dtype, offset, scale):
    check_node(lower, "Scaler", (5 * X).astype(dtype), T.FLOAT, offset=offset, scale=scale)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_normalizer(lower, norm, dtype, opset):
    x = np.concatenate([4 * X, -np.eye(4)]).astype(dtype)
    check_node(lower, "Normalizer", x, T.FLOAT, opset, norm=norm)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, -1.0])
def test_binarizer(lower, threshold):
    extra = {} if threshold is None else {"threshold": threshold}
    check_node(lower, "Binarizer", X, T.FLOAT, **extra)


@pytest.mark.parametrize("imputed", [[1.0, 2, 3, 4], [9.0], [5.0, 6.0]])
@pytest.mark.parametrize("replaced", [float("nan"), 0.0])
def test_float_imputer(lower, imputed, replaced):
    x = X.copy()
    x[::3, 1] = np.nan
    check_node(lower, "Imputer", x, T.FLOAT, imputed_value_floats=imputed,
               replaced_value_float=replaced)


@pytest.mark.parametrize("imputed", [[1, 2, 3, 4], [9]])
def test_integer_imputer(lower, imputed):
    check_node(lower, "Imputer", (3 * X).astype(np.int64), T.INT64, imputed_value_int64s=imputed,
               replaced_value_int64=-1)


WORDS = np.array([["a"], ["b"], ["é"], ["zzz"], [""]], object)
CODES = np.array([[1], [2], [5], [7], [-3]], np.int64)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("zeros", [0, 1])
def test_one_hot_encoder(lower, opset, zeros):
    codes = CODES if zeros else CODES[:3]
    words = WORDS if zeros else WORDS[:3]
    for x in [codes, codes[:, 0], np.concatenate([codes, codes], 1), codes + np.float32(0.5)]:
        check_node(lower, "OneHotEncoder", x, T.FLOAT, opset, cats_int64s=[5, 1, 2], zeros=zeros)
    check_node(lower, "OneHotEncoder", words, T.FLOAT, opset, [] if opset >= 19 else ["OneHotEncoder"],
               cats_strings=["é", "a", "b"], zeros=zeros)


KEYS = {"int64s": ([1, 2, 5, 2], CODES), "floats": ([1.0, 2.0, 5.0, 2.0], CODES.astype(np.float32)),
        "strings": (["a", "b", "é", "b"], WORDS)}
VALUES = {"int64s": ([4, -5, 6, 8], T.INT64, {"default_int64": -7}),
          "floats": ([0.1, 0.2, float("inf"), 0.4], T.FLOAT, {"default_float": 2.5}),
          "strings": (["x", "yy", "", "u"], T.STRING, {"default_string": "none"})}


@pytest.mark.parametrize("opset", [13, 18, 19, 22])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("default", [True, False])
def test_label_encoder(lower, keys, values, default, opset):
    names, x = KEYS[keys]
    wanted, out_type, defaults = VALUES[values]
    leaves = ["LabelEncoder"] if keys == "strings" and opset < 19 else []
    for shaped in [x, np.concatenate([x, x[::-1]], 1)]:
        check_node(lower, "LabelEncoder", shaped, out_type, opset, leaves, ml=2,
                   **{f"keys_{keys}": names, f"values_{values}": wanted},
                   **(defaults if default else {}))


def test_label_encoder_of_tensors(lower):
    check_node(lower, "LabelEncoder", CODES, T.INT64, ml=4,
               keys_tensor=h.make_tensor("k", T.INT64, [2], [1, 5]),
               values_tensor=h.make_tensor("v", T.INT64, [2], [10, 50]),
               default_tensor=h.make_tensor("d", T.INT64, [1], [-9]))


@pytest.mark.parametrize("x,out_type", [(CODES, T.STRING), (WORDS, T.INT64)])
def test_first_label_encoder(lower, x, out_type):
    check_node(lower, "LabelEncoder", x, out_type, 19, ml=1, classes_strings=["zzz", "a", "b"],
               default_string="none", default_int64=-4)


@pytest.mark.parametrize("columns", [[1], [2, 0], [3, 3, 1]])
def test_array_feature_extractor_of_constant_columns(lower, columns):
    indices = h.make_tensor("arg", T.INT64, [len(columns)], columns)
    for x, out_type in [(X, T.FLOAT), (X.astype(np.int64), T.INT64)]:
        check_node(lower, "ArrayFeatureExtractor", x, out_type, initializers=[indices])


@pytest.mark.parametrize("shape", [[4], [2, 2]])
def test_array_feature_extractor_of_runtime_columns(lower, shape):
    feeds = {"x": X, "i": np.array([2, 0, 3, 3]).reshape(shape)}
    check_node(lower, "ArrayFeatureExtractor", feeds, T.FLOAT)


@pytest.mark.parametrize("widths", [[4, 2], [3, 4], [6, 1]])
def test_feature_vectorizer(lower, widths):
    check_node(lower, "FeatureVectorizer", {"a": X, "b": X[:, :2] * 2}, T.FLOAT,
               inputdimensions=widths)
    ints = (3 * X).astype(np.int64)
    check_node(lower, "FeatureVectorizer", {"a": ints, "b": ints[:, :2]}, T.FLOAT,
               inputdimensions=widths)


# Real estimators, as scikit-learn's converter writes them.

def estimators():
    from sklearn import linear_model as lm
    from sklearn import neural_network as nn
    from sklearn import preprocessing as pp
    from sklearn.impute import SimpleImputer
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    logistic = lambda: lm.LogisticRegression(max_iter=300)
    mlp = dict(hidden_layer_sizes=(6,), max_iter=30, random_state=0)
    return {
        "logistic": logistic(),
        "one_vs_rest": OneVsRestClassifier(logistic()),
        "ridge_classifier": lm.RidgeClassifier(),
        "linear_svc": LinearSVC(),
        "sgd_hinge": lm.SGDClassifier(random_state=0),
        "sgd_log": lm.SGDClassifier(loss="log_loss", random_state=0),
        "perceptron": lm.Perceptron(random_state=0),
        "mlp": nn.MLPClassifier(**mlp),
        "standard": make_pipeline(pp.StandardScaler(), logistic()),
        "minmax": make_pipeline(pp.MinMaxScaler(), logistic()),
        "maxabs": make_pipeline(pp.MaxAbsScaler(), logistic()),
        "robust": make_pipeline(pp.RobustScaler(), logistic()),
        "norm_l1": make_pipeline(pp.Normalizer("l1"), logistic()),
        "norm_l2": make_pipeline(pp.Normalizer("l2"), logistic()),
        "norm_max": make_pipeline(pp.Normalizer("max"), logistic()),
        "binarizer": make_pipeline(pp.Binarizer(threshold=0.3), logistic()),
        "imputer": make_pipeline(SimpleImputer(), pp.StandardScaler(), logistic()),
    }


ESTIMATORS = ["logistic", "one_vs_rest", "ridge_classifier", "linear_svc", "sgd_hinge", "sgd_log",
              "perceptron", "mlp", "standard", "minmax", "maxabs", "robust", "norm_l1", "norm_l2",
              "norm_max", "binarizer", "imputer"]
TARGETS = {
    "binary": np.array([0, 1]), "numbers": np.array([4, 9, 2]),
    "strings": np.array(["no", "yes"]), "words": np.array(["a", "b", "c"]),
}


def convert(estimator, types, **options):
    skl2onnx = pytest.importorskip("skl2onnx")
    opset = options.pop("target_opset", 19)
    model = skl2onnx.convert_sklearn(estimator, initial_types=types, target_opset=opset,
                                     options={id(estimator): options} if options else None)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_classifier(lower, name, target):
    pytest.importorskip("sklearn")
    from skl2onnx.common.data_types import FloatTensorType
    x = RNG.normal(size=(200, 5)).astype(np.float32)
    classes = TARGETS[target]
    y = classes[(x[:, 0] + 0.4 * x[:, 1] > 0).astype(int) + (len(classes) > 2) * (x[:, 2] > 0.5)]
    estimator = estimators()[name].fit(x, y)
    if name == "imputer":
        x[::4, 2] = np.nan
    for options in [{}] if name in ("ridge_classifier", "linear_svc") else [{}, {"zipmap": False}]:
        model = convert(estimator, [("X", FloatTensorType([None, 5]))], **options)
        assert_same(lower, model, {"X": x})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["Ridge", "Ridge2", "Lasso", "SGD", "MLP"])
def test_regressor(lower, kind):
    pytest.importorskip("sklearn")
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn import linear_model as lm
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    x = RNG.normal(size=(100, 5)).astype(np.float32)
    y = x @ RNG.normal(size=(5, 2))
    estimator = {"Ridge": lm.Ridge(), "Ridge2": lm.Ridge(), "Lasso": lm.Lasso(),
                 "SGD": lm.SGDRegressor(), "MLP": MLPRegressor(hidden_layer_sizes=(6,), max_iter=30)}[kind]
    pipeline = make_pipeline(StandardScaler(), estimator).fit(x, y if kind == "Ridge2" else y[:, 0])
    assert_same(lower, convert(pipeline, [("X", FloatTensorType([None, 5]))]), {"X": x})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [18, 19])
def test_columns_of_numbers_and_categories(lower, opset):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    n = 120
    frame = pd.DataFrame({
        "size": RNG.normal(size=n).astype(np.float32), "age": RNG.normal(size=n).astype(np.float32),
        "grade": RNG.integers(0, 4, n), "town": RNG.choice(["a", "b", "c"], n),
    })
    y = np.where(frame["size"] + (frame["town"] == "a") > 0.3, "yes", "no")
    columns = ColumnTransformer([
        ("numbers", StandardScaler(), ["size", "age"]),
        ("codes", OneHotEncoder(handle_unknown="ignore"), ["grade"]),
        ("words", OneHotEncoder(handle_unknown="ignore"), ["town"]),
    ])
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, y)
    types = [("size", FloatTensorType([None, 1])), ("age", FloatTensorType([None, 1])),
             ("grade", Int64TensorType([None, 1])), ("town", StringTensorType([None, 1]))]
    feeds = {c: frame[[c]].to_numpy() for c in frame.columns}
    feeds["town"] = feeds["town"].astype(object)
    leaves = [] if opset >= 19 else ["OneHotEncoder"]
    assert_same(lower, convert(pipeline, types, target_opset=opset), feeds, leaves)


def test_ordinal_and_label_encoders(lower):
    pytest.importorskip("sklearn")
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType
    from sklearn.preprocessing import LabelEncoder, OrdinalEncoder
    words = RNG.choice(["a", "b", "c"], (30, 2)).astype(object)
    model = convert(OrdinalEncoder().fit(words), [("X", StringTensorType([None, 2]))])
    assert_same(lower, model, {"X": words})
    codes = RNG.integers(0, 4, (30, 2))
    model = convert(OrdinalEncoder().fit(codes), [("X", Int64TensorType([None, 2]))])
    assert_same(lower, model, {"X": codes})
    model = convert(LabelEncoder().fit(words[:, 0]), [("X", StringTensorType([None]))])
    assert_same(lower, model, {"X": words[:, 0]})


# Trained models on their held-out data.

CLASSICAL = ["notebook", "digits", "breast_cancer", "diabetes", "wine"]
OUT_OF_SCOPE = {"gb": ["TreeEnsembleClassifier"], "rf100": ["TreeEnsembleClassifier"],
                "svc_rbf": ["SVMClassifier"], "svc_rbf_proba": ["SVMClassifier"]}


@pytest.mark.parametrize("folder", CLASSICAL)
def test_trained_models(lower, folder):
    models = sorted((CASES / folder).glob("*.onnx"))
    if not models:
        pytest.skip(f"no models in {CASES / folder}; set FEWBITS_CASES to the folder of cases")
    x = np.load(CASES / folder / "test.npz")["X"].astype(np.float32)
    for path in models:
        before = path.read_bytes()
        proto = assert_same(lower, before, {"X": x}, OUT_OF_SCOPE.get(path.stem, []))
        if folder == "notebook":
            assert len(proto.SerializeToString()) < 720, path
