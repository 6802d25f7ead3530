//! The schema is whole: real models go through reading and writing without losing a byte.

use std::path::{Path, PathBuf};

use fewbits_onnx::{ExternalData, Model, SaveOptions};

fn models(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.map(|e| e.unwrap().path()) {
        if path.is_dir() {
            models(&path, found);
        } else if path.extension().is_some_and(|e| e == "onnx")
            && !path.components().any(|c| c.as_os_str() == "hostile")
        {
            found.push(path);
        }
    }
}

fn real_models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    models(&root.join("tests/fixtures"), &mut found);
    let cases =
        std::env::var_os("FEWBITS_CASES").map_or(root.join("../shared/cases"), PathBuf::from);
    if cases.is_dir() {
        models(&cases, &mut found);
    } else {
        println!("skipped: {} is not there, only the fixtures are read", cases.display());
    }
    assert!(found.len() >= 10, "the fixtures hold models");
    found
}

#[test]
fn nothing_is_lost() {
    for path in real_models() {
        let model = Model::open(&path).unwrap();
        let bytes = model.to_bytes();
        // Fields may change places, but every one of them takes what it took.
        assert_eq!(bytes.len() as u64, model.file_bytes(), "{}", path.display());
        let again = Model::from_bytes(bytes.into()).unwrap();
        assert!(again.proto() == model.proto(), "{}", path.display());
    }
}

#[test]
fn weights_survive_a_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    for (i, path) in real_models().into_iter().enumerate() {
        let model = Model::open(&path).unwrap();
        let out = folder.path().join(format!("{i}.onnx"));
        let options = SaveOptions { external_data: ExternalData::Beside, ..SaveOptions::default() };
        let saved = model.save(&out, options).unwrap();
        let again = Model::open(&out).unwrap();
        assert_eq!(again.file_bytes(), saved.file_bytes);
        for (a, b) in model.graph().initializer.iter().zip(&again.graph().initializer) {
            assert_eq!((a.name(), a.shape().unwrap()), (b.name(), b.shape().unwrap()));
            assert!(a.raw_data() == b.raw_data(), "{} of {}", a.name(), path.display());
        }
    }
}
