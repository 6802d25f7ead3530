//! Training and writing the model as scikit-learn's converter would.

use fewbits_onnx::passes::lower_ml::logistic_classifier;
use fewbits_onnx::proto::{DataType, GraphProto, OperatorSetIdProto, ValueInfoProto};
use fewbits_onnx::{MODEL_DOMAIN_ML, Model};
use smartcore::linalg::basic::arrays::Array;
use smartcore::linalg::basic::matrix::DenseMatrix;
use smartcore::linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters};

/// The opset that the notebook's model is exported with.
const OPSET: i64 = 17;

/// A trained model.
pub(super) struct Trained {
    pub(super) coefficients: Vec<f64>,
    intercept: f64,
    /// On the test rows, in f64.
    pub(super) accuracy: f64,
    pub(super) train_rows: usize,
}

/// Trains on embedded data; the penalty is scikit-learn's default, `C = 1`.
pub(super) fn logistic_regression(train_csv: &str, test_csv: &str) -> Trained {
    let (x, y) = rows(train_csv);
    let train_rows = y.len();
    let parameters = LogisticRegressionParameters::default().with_alpha(1.0);
    let model =
        LogisticRegression::fit(&x, &y, parameters).expect("the embedded data has two classes");
    let (x, y) = rows(test_csv);
    let predicted = model.predict(&x).expect("the model was fitted");
    let right = predicted.iter().zip(&y).filter(|(a, b)| a == b).count();
    Trained {
        coefficients: model.coefficients().iterator(0).copied().collect(),
        intercept: *model.intercept().get((0, 0)),
        accuracy: right as f64 / y.len() as f64,
        train_rows,
    }
}

/// Features and labels of an embedded table, the label last.
fn rows(text: &str) -> (DenseMatrix<f64>, Vec<i32>) {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record.expect("the embedded table is well formed");
        let row: Vec<f64> =
            record.iter().map(|cell| cell.parse().expect("and holds numbers")).collect();
        let (label, features) = row.split_last().expect("and rows are not empty");
        x.push(features.to_vec());
        y.push(*label as i32);
    }
    (DenseMatrix::from_2d_vec(&x).expect("rows are of equal length"), y)
}

impl Trained {
    /// One `LinearClassifier`, scores of both classes, as skl2onnx writes it.
    pub(super) fn to_model(&self) -> Model {
        let coefficients: Vec<f32> = self.coefficients.iter().map(|&v| v as f32).collect();
        let names = ["X", "label", "probabilities"];
        let node = logistic_classifier(names, &coefficients, self.intercept as f32);
        let features = self.coefficients.len() as i64;
        let graph = GraphProto {
            node: vec![node],
            name: Some("logistic_regression".into()),
            input: vec![ValueInfoProto::tensor(
                "X",
                DataType::Float as i32,
                &[None, Some(features)],
            )],
            output: vec![
                ValueInfoProto::tensor("label", DataType::Int64 as i32, &[None]),
                ValueInfoProto::tensor("probabilities", DataType::Float as i32, &[None, Some(2)]),
            ],
            ..GraphProto::default()
        };
        let mut model = Model::from_graph(graph, OPSET);
        model.proto_mut().opset_import.push(OperatorSetIdProto {
            domain: Some(MODEL_DOMAIN_ML.to_string()),
            version: Some(1),
        });
        model
    }
}
