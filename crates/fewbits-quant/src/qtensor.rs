//! A quantized tensor.

use crate::{Layout, PackedInts, QuantParams, ScaleType, Span};

/// A tensor of integers, or of small floats, with the parameters that give them meaning:
/// `value = (integer - zero_point) * scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct QTensor {
    pub(crate) layout: Layout,
    pub(crate) params: QuantParams,
    pub(crate) codes: PackedInts,
    /// Where scales are quantized in turn: they stand for those of `params`.
    pub(crate) coded_scales: Option<Box<QTensor>>,
}

impl QTensor {
    /// Joins integers and parameters, `None` if their numbers do not fit the layout.
    pub fn new(layout: Layout, params: QuantParams, codes: PackedInts) -> Option<QTensor> {
        let count = layout.params();
        let fits = params.scale.len() == count
            && (params.zero_point.is_empty() || params.zero_point.len() == count)
            && codes.len() == layout.elements();
        fits.then_some(QTensor { layout, params, codes, coded_scales: None })
    }

    /// Joins small floats, or integers without zero points, with scales that are quantized in turn.
    /// `None` if their numbers do not fit the layout.
    pub fn with_coded_scales(
        layout: Layout,
        coded_scales: QTensor,
        zero_point: Vec<u8>,
        codes: PackedInts,
    ) -> Option<QTensor> {
        let params = QuantParams { scale: coded_scales.dequantize(), zero_point };
        let joined = QTensor::new(layout, params, codes)?;
        Some(QTensor { coded_scales: Some(Box::new(coded_scales)), ..joined })
    }

    /// Which elements share a parameter.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Scales and zero points.
    pub fn params(&self) -> &QuantParams {
        &self.params
    }

    /// What the scales are stored as where they are quantized in turn: as many elements as there are
    /// scales, which these stand for.
    pub fn coded_scales(&self) -> Option<&QTensor> {
        self.coded_scales.as_deref()
    }

    /// Bytes that codes, scales and zero points take as they are stored.
    pub fn bytes(&self) -> usize {
        let scales = match self.coded_scales() {
            Some(coded) => coded.bytes(),
            None => match ScaleType::of(&self.params.scale) {
                ScaleType::F16 => 2 * self.params.scale.len(),
                ScaleType::F32 | ScaleType::U8 => 4 * self.params.scale.len(),
            },
        };
        self.codes.bytes().len() + scales + self.params.zero_point.len()
    }

    /// The integers.
    pub fn codes(&self) -> &PackedInts {
        &self.codes
    }

    /// The integers, taken out.
    pub fn into_codes(self) -> PackedInts {
        self.codes
    }

    /// Other integers with the same parameters; as many, and of the same encoding.
    pub(crate) fn with_codes(self, codes: PackedInts) -> QTensor {
        debug_assert_eq!(codes.len(), self.codes.len());
        QTensor { codes, ..self }
    }

    /// The same integers in 8 bits.
    pub(crate) fn widened(self) -> QTensor {
        let codes = PackedInts::pack(&self.codes.unpack(), 8, self.codes.encoding());
        self.with_codes(codes)
    }

    /// Other parameters for the same integers; as many.
    pub(crate) fn with_params(self, params: QuantParams) -> QTensor {
        debug_assert_eq!(params.scale.len(), self.params.scale.len());
        QTensor { params, coded_scales: None, ..self }
    }

    /// The floats that the integers stand for: `(q - zero_point) * scale` in f32, the arithmetic
    /// of ONNX's `DequantizeLinear`.
    pub fn dequantize(&self) -> Vec<f32> {
        let codes = self.codes.unpack();
        let mut values = vec![0f32; codes.len()];
        let floats = self.codes.encoding().floats();
        self.layout.for_each_run(|run, span| {
            self.dequantize_run(&codes[run.clone()], span, floats.as_deref(), &mut values[run]);
        });
        values
    }

    /// The same for one row along the first axis.
    ///
    /// # Panics
    /// If there is no such row, or `values` has another length.
    pub fn dequantize_row(&self, row: usize, values: &mut [f32]) {
        assert!(row < self.layout.shape()[0], "row {row} of {:?}", self.layout.shape());
        let codes = self.codes.unpack_range(row * values.len()..(row + 1) * values.len());
        let floats = self.codes.encoding().floats();
        self.layout.for_each_run_of_row(row, |run, span| {
            self.dequantize_run(&codes[run.clone()], span, floats.as_deref(), &mut values[run]);
        });
    }

    /// The values of consecutive codes; `floats` are those of all codes, if these are small floats.
    fn dequantize_run(
        &self,
        codes: &[i16],
        span: Span,
        floats: Option<&[f32]>,
        values: &mut [f32],
    ) {
        let value = |code: i16, param: usize| {
            let number = match floats {
                Some(floats) => floats[code as usize],
                None => f32::from(code - self.params.zero_point_of(param)),
            };
            number * self.params.scale[param]
        };
        let pairs = values.iter_mut().zip(codes);
        match span {
            Span::One(param) => pairs.for_each(|(x, &code)| *x = value(code, param)),
            Span::Each(first) => {
                pairs.zip(first..).for_each(|((x, &code), param)| *x = value(code, param))
            }
        }
    }
}
