//! Bytes in another layout, or of another scale.

use fewbits_kernels::Halo;
use fewbits_kernels::bytes::QuantizeTo;
use fewbits_onnx::proto::NodeProto;

use crate::lower::{Bytes, Lowering, bytes};
use crate::op::{ByteScale, Lut, Op};
use crate::program::{Layout, ValueId};
use crate::view::ByteType;

impl Lowering<'_> {
    /// Quantizes floats.
    pub(crate) fn quantize(
        &mut self,
        input: ValueId,
        ty: ByteType,
        layout: Layout,
        node: &NodeProto,
    ) -> ValueId {
        let output = bytes(ty.scale, layout);
        self.step(output, &[input], "QuantizeLinear", node, Op::Quantize(ty.scale))
    }

    /// The same bytes with the scale and zero point that a DequantizeLinear gives them: copied if
    /// these are others, since the halo of an image holds its zero point.
    pub(crate) fn with_meaning(&mut self, bytes: Bytes, ty: ByteType, node: &NodeProto) -> Bytes {
        if bytes.ty == ty {
            return bytes;
        }
        let table = Box::new(std::array::from_fn(|q| q as u8));
        let what = "requantize".to_string();
        Bytes { id: self.looked_up(bytes.id, table, ty.scale, what, node), ty }
    }

    /// The value as images, channels last, with at least `halo` around them.
    pub(crate) fn as_image(&mut self, bytes: Bytes, halo: Halo, node: &NodeProto) -> ValueId {
        let image = self.in_layout(bytes, Layout::IMAGES, node);
        self.widen_halo(image, halo);
        image
    }

    /// Makes sure that an image has at least `halo` around it.
    pub(crate) fn widen_halo(&mut self, image: ValueId, halo: Halo) {
        if let Layout::ChannelsLast(known) = &mut self.values[image.index()].layout {
            *known = known.union(halo);
        }
    }

    /// The value in the order of ONNX, or as images.
    pub(crate) fn in_layout(&mut self, from: Bytes, layout: Layout, node: &NodeProto) -> ValueId {
        let Bytes { id, ty } = from;
        if self.layout(id).is_channels_last() == layout.is_channels_last() {
            return id;
        }
        if let Some(&other) = self.other_layout.get(&id) {
            return other;
        }
        let step = self.step_of[id.index()].map(|step| &self.steps[step]);
        let other = match step.map(|step| (&step.op, &step.inputs)) {
            // Floats are quantized straight into the layout that is wanted.
            Some((Op::Quantize(_), inputs)) => self.quantize(inputs[0], ty, layout, node),
            _ => {
                let what = match layout {
                    Layout::ChannelsLast(_) => "to channels last",
                    Layout::RowMajor => "to channels first",
                };
                let op = Op::ChangeLayout(ty.scale.zero_point);
                self.step(bytes(ty.scale, layout), &[id], what, node, op)
            }
        };
        self.other_layout.insert(id, other);
        other
    }

    /// Bytes `from` as bytes `to`, by a table unless they are the same.
    pub(crate) fn requantized(&mut self, from: Bytes, to: QuantizeTo, node: &NodeProto) -> ValueId {
        if to == from.ty.scale.all_bytes() {
            self.shared.insert(from.id);
            return from.id;
        }
        let table = table_of(from.ty.scale, to, |x| x);
        self.looked_up(from.id, table, ByteScale::of(to), "requantize".to_string(), node)
    }

    /// Looks each byte up in a table, which gives bytes of the scale `to`.
    pub(crate) fn looked_up(
        &mut self,
        input: ValueId,
        table: Box<[u8; 256]>,
        to: ByteScale,
        what: String,
        node: &NodeProto,
    ) -> ValueId {
        let layout = match self.layout(input) {
            Layout::RowMajor => Layout::RowMajor,
            Layout::ChannelsLast(_) => Layout::IMAGES,
        };
        let op = Op::Lut(Lut { table, zero_point: to.zero_point });
        self.step(bytes(to, layout), &[input], what, node, op)
    }
}

/// What becomes of each byte of the scale `from`.
pub(crate) fn table_of(
    from: ByteScale,
    to: QuantizeTo,
    function: impl Fn(f32) -> f32,
) -> Box<[u8; 256]> {
    Box::new(std::array::from_fn(|q| to.byte(function(from.float(q as u8)))))
}
