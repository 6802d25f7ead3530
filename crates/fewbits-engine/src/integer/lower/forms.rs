//! Bytes in another order, or of another scale.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::QuantizeTo;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::net::ByteType;
use crate::integer::program::AnyStep;
use crate::integer::state::{ByteScale, ValueId};
use crate::integer::steps::quantize::{LookUp, Quantize, Reorder};

impl Lowering<'_> {
    /// Quantizes floats.
    pub(super) fn quantize(
        &mut self,
        input: ValueId,
        ty: ByteType,
        form: Form,
        node: &NodeProto,
    ) -> ValueId {
        let output = self.value(form);
        let step = AnyStep::Quantize(Quantize { input, output, scale: ty.scale, form });
        self.push(step, &[input], output, "QuantizeLinear", node);
        output
    }

    /// The same bytes with the scale and zero point that a DequantizeLinear gives them: copied if
    /// these are others, since the halo of an image holds its zero point.
    pub(super) fn with_meaning(&mut self, bytes: Bytes, ty: ByteType, node: &NodeProto) -> Bytes {
        if bytes.ty == ty {
            return bytes;
        }
        let table = Box::new(std::array::from_fn(|q| q as u8));
        let what = "requantize".to_string();
        Bytes { id: self.looked_up(bytes.id, table, ty.scale.zero_point, what, node), ty }
    }

    /// The value as images, channels last, with at least `halo` around them.
    pub(super) fn as_image(&mut self, bytes: Bytes, halo: Halo, node: &NodeProto) -> ValueId {
        let image = self.in_form(bytes, Form::Image, node);
        self.widen_halo(image, halo);
        image
    }

    /// Makes sure that an image has at least `halo` around it.
    pub(super) fn widen_halo(&mut self, image: ValueId, halo: Halo) {
        let known = &mut self.values[image.index()];
        known.halo = known.halo.union(halo);
    }

    /// The value in the order of ONNX, or as images.
    pub(super) fn in_form(&mut self, bytes: Bytes, form: Form, node: &NodeProto) -> ValueId {
        let Bytes { id, ty } = bytes;
        if self.form(id) == form {
            return id;
        }
        if let Some(&other) = self.other_form.get(&id) {
            return other;
        }
        let unit = self.values[id.index()].unit.map(|unit| &self.units[unit].step);
        let other = match unit {
            // Floats are quantized straight into the order that is wanted.
            Some(AnyStep::Quantize(quantize)) => {
                let input = quantize.input;
                self.quantize(input, ty, form, node)
            }
            _ => {
                let what = match form {
                    Form::Image => "to channels last",
                    Form::Plain => "to channels first",
                };
                let halo = ty.scale.zero_point;
                self.step(form, &[id], what, node, |output| Reorder {
                    input: id,
                    output,
                    to: form,
                    halo,
                })
            }
        };
        self.other_form.insert(id, other);
        other
    }

    /// Bytes `from` as bytes `to`, by a table unless they are the same.
    pub(super) fn requantized(&mut self, from: Bytes, to: QuantizeTo, node: &NodeProto) -> ValueId {
        let same = QuantizeTo::all_bytes(from.ty.scale.scale, from.ty.scale.zero_point);
        if to == same {
            self.shared.insert(from.id);
            return from.id;
        }
        let table = table_of(from.ty.scale, to, |x| x);
        self.looked_up(from.id, table, to.zero_point, "requantize".to_string(), node)
    }

    /// Looks each byte up in a table.
    pub(super) fn looked_up(
        &mut self,
        input: ValueId,
        table: Box<[u8; 256]>,
        halo: u8,
        what: String,
        node: &NodeProto,
    ) -> ValueId {
        let form = self.form(input);
        self.step(form, &[input], what, node, |output| LookUp { input, output, table, form, halo })
    }
}

/// What becomes of each byte of the scale `from`.
pub(super) fn table_of(
    from: ByteScale,
    to: QuantizeTo,
    function: impl Fn(f32) -> f32,
) -> Box<[u8; 256]> {
    let real = |q: u8| (f32::from(q) - f32::from(from.zero_point)) * from.scale;
    Box::new(std::array::from_fn(|q| to.byte(function(real(q as u8)))))
}
