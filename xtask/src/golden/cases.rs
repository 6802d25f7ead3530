//! What is hashed: models with data, and the ways to quantize each.

use std::path::PathBuf;

/// A model and the data that it is calibrated and run on.
pub struct Case {
    folder: &'static str,
    model: &'static str,
    calibration: &'static str,
    data: &'static str,
    /// Options of every command that reads data.
    pub data_options: &'static [&'static str],
    rten: Rten,
}

/// What of the float model rten computes when it is calibrated: its last bits depend on the CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rten {
    /// Nothing that is seen in a file.
    Nothing,
    /// What rounding learns from.
    Learning,
    /// The values, too.
    Values,
}

/// Where the files of a [`Case`] lie.
pub struct Files {
    pub model: PathBuf,
    pub calibration: PathBuf,
    pub data: PathBuf,
}

impl Case {
    const fn new(
        folder: &'static str,
        model: &'static str,
        calibration: &'static str,
        data: &'static str,
    ) -> Case {
        Case { folder, model, calibration, data, data_options: &[], rten: Rten::Nothing }
    }

    const fn with(self, data_options: &'static [&'static str]) -> Case {
        Case { data_options, ..self }
    }

    const fn with_rten(self, rten: Rten) -> Case {
        Case { rten, ..self }
    }

    /// Whether the bytes of a file depend on the CPU that writes it.
    pub fn depends_on_cpu(&self, variant: &Variant) -> bool {
        match (self.rten, variant.calibrated) {
            (Rten::Nothing, _) | (_, Calibrated::No) => false,
            (Rten::Learning, Calibrated::Yes) => false,
            (Rten::Learning, Calibrated::Learning) | (Rten::Values, _) => true,
        }
    }

    /// How the case is called: its folder and its model.
    pub fn name(&self) -> String {
        format!("{}/{}", self.folder, self.model)
    }

    /// The files, each from the first of `folders` that has it; or the name of one that is missing.
    pub fn files(&self, folders: &[PathBuf]) -> Result<Files, String> {
        let find = |file: &str| {
            let mut paths = folders.iter().map(|folder| folder.join(self.folder).join(file));
            paths.find(|path| path.is_file()).ok_or_else(|| format!("{}/{file}", self.folder))
        };
        Ok(Files {
            model: find(self.model)?,
            calibration: find(self.calibration)?,
            data: find(self.data)?,
        })
    }
}

/// Every model of the cases.
pub const CASES: &[Case] = &[
    Case::new("notebook", "model.onnx", "test_f32.npz", "test_f32.npz"),
    Case::new("notebook", "model_zipmap.onnx", "test_f32.npz", "test_f32.npz"),
    Case::new("notebook", "model_defaultopset.onnx", "test_f32.npz", "test_f32.npz"),
    Case::new("breast_cancer", "raw_logreg.onnx", "test.npz", "test.npz"),
    Case::new("breast_cancer", "scaler_logreg.onnx", "test.npz", "test.npz"),
    Case::new("diabetes", "ridge.onnx", "test.npz", "test.npz"),
    Case::new("diabetes", "ridge_raw.onnx", "test.npz", "test.npz"),
    Case::new("diabetes", "mlp.onnx", "test.npz", "test.npz"),
    Case::new("wine", "linearsvc.onnx", "test.npz", "test.npz"),
    Case::new("wine", "svc_rbf.onnx", "test.npz", "test.npz"),
    Case::new("wine", "svc_rbf_proba.onnx", "test.npz", "test.npz"),
    Case::new("digits", "logreg.onnx", "train.npz", "test.npz"),
    Case::new("digits", "mlp.onnx", "train.npz", "test.npz"),
    Case::new("digits", "rf100.onnx", "train.npz", "test.npz"),
    Case::new("digits", "gb.onnx", "train.npz", "test.npz"),
    Case::new("digits_cnn", "model.onnx", "calib.npz", "test.npz"),
    Case::new("digits_cnn", "model_bn.onnx", "calib.npz", "test.npz"),
    Case::new("tiny_lm", "model.onnx", "calib.npz", "test.npz").with_rten(Rten::Values),
    Case::new("fashion", "model.onnx", "calib_images.npz", "test_images.npz")
        .with(IMAGES)
        .with_rten(Rten::Learning),
    Case::new("fashion", "model_bn.onnx", "calib_images.npz", "test_images.npz")
        .with(IMAGES)
        .with_rten(Rten::Learning),
];

const IMAGES: &[&str] = &["--normalize", "0.286,0.353", "--limit", "100"];

/// A way to quantize.
pub struct Variant {
    pub name: &'static str,
    pub options: &'static [&'static str],
    pub calibrated: Calibrated,
}

/// Whether calibration data is given, and what for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Calibrated {
    Yes,
    /// For rounding to learn from, too.
    Learning,
    No,
}

/// Every recipe but `auto`, whose files depend on what is slower on this machine; and every way in which a
/// weight is written.
pub const VARIANTS: &[Variant] = &[
    Variant { name: "weights", options: &[], calibrated: Calibrated::No },
    Variant { name: "dynamic", options: &["--recipe", "dynamic"], calibrated: Calibrated::No },
    Variant { name: "static", options: &["--recipe", "static"], calibrated: Calibrated::Yes },
    Variant {
        name: "onnxruntime",
        options: &["--recipe", "static", "--target", "onnxruntime"],
        calibrated: Calibrated::Yes,
    },
    Variant {
        name: "4-bit",
        options: &["--bits", "4", "--granularity", "group=32"],
        calibrated: Calibrated::No,
    },
    Variant {
        name: "3-bit-calibrated",
        options: &["--bits", "3", "--granularity", "group=32"],
        calibrated: Calibrated::Learning,
    },
    Variant {
        name: "fixed-point",
        options: &["--scheme", "fixed-point", "--bits", "8"],
        calibrated: Calibrated::No,
    },
    Variant { name: "mxfp4", options: &["--scheme", "mxfp4"], calibrated: Calibrated::No },
];
