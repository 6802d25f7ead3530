//! What a method may add to a model.
//!
//! Factors that nothing before a product can take are floats of their own beside its weight, and they count as
//! its weights: of a small layer they would hold what its integers no longer do.
//!
//! Below 8 bits the layer must stay smaller than it is at 8 bits without the method. At 8 bits, where nothing is
//! saved that could be spent, one bit a weight may be added; more only where the model is poor without.

use std::collections::HashMap;

use fewbits_onnx::Model;
use fewbits_onnx::qweight::{QWeightWriter, WeightForm};
use fewbits_quant::{Bits, Layout, PackedInts, Scheme};

use crate::layers::Product;
use crate::plan::{ActivationUse, Plan};

/// About what the operator that multiplies an activation takes in a file.
const MUL_BYTES: usize = 64;
/// At 8 bits, where no bits are saved that it could take, a method may add one bit a weight.
const WEIGHTS_A_BYTE: usize = 8;

/// How a model does without the method that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Well, or nobody knows.
    Well,
    /// So poorly that it is of little use.
    Poorly,
}

/// How many floats a method may add to the products that read an activation.
pub enum Allowance<'a> {
    /// As many as it likes.
    Any,
    /// So many that the layer stays smaller than it is at 8 bits without the method.
    Smaller {
        /// What weights become.
        schemes: HashMap<&'a str, Scheme>,
        /// How their integers are written.
        form: WeightForm,
        /// The opset whose types they may have.
        opset: i64,
    },
}

impl<'a> Allowance<'a> {
    /// That of a method which nobody asked for by name, with the weights of a plan.
    pub fn of(
        plan: &'a Plan,
        model: &Model,
        activations: ActivationUse,
        without: Without,
    ) -> Allowance<'a> {
        let quantized = plan.quantized();
        let narrow = plan.quantized().any(|(_, scheme)| scheme.bits() != Some(Bits::EIGHT));
        if without == Without::Poorly && !narrow {
            return Allowance::Any;
        }
        Allowance::Smaller {
            schemes: quantized.map(|(t, scheme)| (t.tensor.as_str(), scheme)).collect(),
            form: plan.target.weights(activations),
            opset: model.opset(),
        }
    }

    /// Whether the products that read one activation may be given a factor for each of its channels.
    pub fn allows(&self, readers: &[&Product]) -> bool {
        let Allowance::Smaller { schemes, form, opset } = self else { return true };
        let factors = readers.first().map_or(0, |product| product.inputs());
        let (mut now, mut at_8_bits) = (4 * factors + MUL_BYTES, 0);
        for product in readers {
            let Some(&scheme) = schemes.get(product.weight.as_str()) else { continue };
            let len: usize = product.shape.iter().product();
            let params =
                Layout::new(&product.shape, scheme.granularity()).map_or(1, |l| l.params());
            // The integers of fixed-point numbers may be of any width.
            let width = scheme.bits().map_or(PackedInts::MAX_WIDTH, |bits| bits.get());
            now += QWeightWriter::integer_bytes(len, width, *form, *opset) + 4 * params;
            at_8_bits += len + 4 * params;
            if width == 8 {
                at_8_bits += len.div_ceil(WEIGHTS_A_BYTE);
            }
        }
        now < at_8_bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::ProductKind;
    use fewbits_quant::Granularity;

    fn allows(inputs: usize, outputs: usize, bits: u8) -> bool {
        let granularity = Granularity::Channel { axis: 1 };
        let scheme = Scheme::Symmetric { bits: Bits::new(bits).unwrap(), granularity };
        let product = Product {
            node: 0,
            value: "x".into(),
            weight: "w".into(),
            shape: vec![inputs, outputs],
            kind: ProductKind::Columns,
        };
        let schemes = HashMap::from([("w", scheme)]);
        let allowance = Allowance::Smaller { schemes, form: WeightForm::Newest, opset: 13 };
        assert!(Allowance::Any.allows(&[&product]));
        allowance.allows(&[&product])
    }

    #[test]
    fn a_linear_model_is_given_no_floats_for_its_weights() {
        for bits in 1..=8 {
            for (inputs, outputs) in [(20, 1), (20, 2), (30, 2), (13, 3)] {
                assert!(!allows(inputs, outputs, bits), "{inputs} x {outputs} at {bits} bits");
            }
        }
        // What 3 bits save of it is less than the factors take.
        assert!(!allows(64, 10, 3) && !allows(64, 10, 8));
    }

    #[test]
    fn a_large_layer_may_have_them() {
        for bits in 1..=8 {
            assert!(allows(384, 384, bits), "{bits} bits");
        }
        // Nothing is saved that they could take: 7 bits are stored as 8.
        assert!(!allows(32, 32, 7));
    }
}
