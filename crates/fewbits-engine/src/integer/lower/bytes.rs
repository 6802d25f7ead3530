//! Bytes that are wanted, and bytes that are there.

use fewbits_kernels::bytes::QuantizeTo;
use fewbits_onnx::proto::NodeProto;

use crate::integer::lower::forms::table_of;
use crate::integer::lower::function::name_of;
use crate::integer::lower::rules::Wanted;
use crate::integer::lower::{Bytes, Form, Lowering};
use crate::integer::net::ByteType;
use crate::integer::refusal::{Refusal, only};
use crate::integer::state::ValueId;
use crate::integer::steps::product::Epilogue;
use crate::integer::steps::quantize::{Dequantize, GiveOut};

impl<'a> Lowering<'a> {
    /// Computes the bytes that the QuantizeLinear with output `q` writes.
    fn quantized(&mut self, q: &'a str) -> Result<Bytes, Refusal> {
        if let Some(known) = self.bytes.get(q) {
            return known.clone();
        }
        let bytes = self.quantized_anew(q);
        self.bytes.insert(q, bytes.clone());
        bytes
    }

    fn quantized_anew(&mut self, q: &'a str) -> Result<Bytes, Refusal> {
        let Some((_, node)) = self.net.producer(q) else {
            return Err(Refusal::of_values("the integers before it are an input, or constant"));
        };
        if !node.is("QuantizeLinear") {
            return Err(Refusal::of_values(
                "an operator without a kernel here writes the integers",
            ));
        }
        let ty = self.byte_type(node)?;
        let float = node.input[0].as_str();
        if !self.is_float(float) {
            return Err(self.no_kernel_for(float));
        }
        if self.net.has_one_use(float)
            && let Some(id) = self.computed_on_bytes(float, ty)
        {
            return Ok(Bytes { id, ty });
        }
        let input = self.tensor(float);
        let to = QuantizeTo::all_bytes(ty.scale.scale, ty.scale.zero_point);
        if let Some(product) = self.open_product(float, input)
            && let Epilogue::Floats { quantize: quantize @ None, .. } = &mut product.epilogue
        {
            *quantize = Some(to);
            return Ok(Bytes { id: self.fuse(input, Form::Plain, " + QuantizeLinear"), ty });
        }
        Ok(Bytes { id: self.quantize(input, ty, Form::Plain, node), ty })
    }

    fn byte_type(&self, node: &NodeProto) -> Result<ByteType, Refusal> {
        let why = "its integers do not have 8 bits with one constant scale";
        self.net.byte_type(node).ok_or(Refusal::of_node(why))
    }

    /// Computes the float value `name`, which a QuantizeLinear alone reads, as its bytes, if what
    /// produces it can be computed on bytes.
    fn computed_on_bytes(&mut self, name: &'a str, ty: ByteType) -> Option<ValueId> {
        let mut to = QuantizeTo::all_bytes(ty.scale.scale, ty.scale.zero_point);
        let mut name = name;
        let mut behind = String::new();
        loop {
            let (position, node) = self.net.producer(name)?;
            let Some((low, high)) = self.clip_bounds(node) else {
                return self.bytes_of(position, &Wanted { node, name, to, behind });
            };
            // Rounding is monotone: clipping before it is the same as clipping its result.
            let (low, high) = (low.map(|x| to.byte(x)), high.map(|x| to.byte(x)));
            to.low = to.low.max(low.unwrap_or(0));
            to.high = to.high.min(high.unwrap_or(255));
            name = node.input[0].as_str();
            if to.low > to.high || !(self.net.has_one_use(name) || self.is_source(name)) {
                return None;
            }
            behind = format!(" + {}{behind}", node.op_type());
        }
    }

    /// Turns bytes of one scale into those of another.
    pub(super) fn requantized_source(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        only(&["DequantizeLinear"], wanted.node)?;
        let from = self.source(wanted.name)?;
        Ok(self.requantized(from, wanted.to, wanted.node))
    }

    /// Moves bytes.
    pub(super) fn moved_to_bytes(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let from = self.moved(wanted.node)?;
        Ok(self.requantized(from, wanted.to, wanted.node))
    }

    /// Looks a function of each byte up in a table of its 256 values.
    pub(super) fn function_table(&mut self, wanted: &Wanted<'a>) -> Result<ValueId, Refusal> {
        let (node, to) = (wanted.node, wanted.to);
        let (function, name) = self.function_at(node)?;
        let from = self.source(name)?;
        let table = table_of(from.ty.scale, to, |x| function.at(x));
        let what = format!("{} by a table", name_of(function, node));
        Ok(self.looked_up(from.id, table, to.zero_point, what, node))
    }

    pub(super) fn is_source(&self, name: &str) -> bool {
        self.net.producer(name).is_some_and(|(_, n)| n.is("DequantizeLinear"))
    }

    /// The bounds of a Relu or a Clip with constant ones.
    pub(super) fn clip_bounds(&self, node: &NodeProto) -> Option<(Option<f32>, Option<f32>)> {
        if node.is("Relu") {
            return Some((Some(0.0), None));
        }
        if !node.is("Clip") {
            return None;
        }
        let bound = |i: usize, name: &str| match node.input.get(i).map_or("", String::as_str) {
            "" => Some(node.attr(name).map(|a| a.f())),
            input => self.net.scalar(input).map(Some),
        };
        Some((bound(1, "min")?, bound(2, "max")?))
    }

    /// Finds the bytes behind a float value: it is a DequantizeLinear, or moves elements of one.
    pub(super) fn source(&mut self, float: &'a str) -> Result<Bytes, Refusal> {
        if let Some(known) = self.bytes.get(float) {
            return known.clone();
        }
        let bytes = self.source_anew(float);
        self.bytes.insert(float, bytes.clone());
        bytes
    }

    fn source_anew(&mut self, float: &'a str) -> Result<Bytes, Refusal> {
        let not_quantized = || Refusal::of_values("activations are not quantized");
        let (position, node) = self.net.producer(float).ok_or_else(not_quantized)?;
        if !node.is("DequantizeLinear") {
            let moved = self.moved(node);
            return self.noted(position, moved).ok_or_else(not_quantized);
        }
        let why = "activations do not have 8 bits with one constant scale";
        let ty = self.net.byte_type(node).ok_or(Refusal::of_values(why))?;
        let bytes = self.quantized(node.input[0].as_str())?;
        if bytes.ty.signed != ty.signed {
            return Err(Refusal::of_values("its zero point is of another type than the integers"));
        }
        Ok(self.with_meaning(bytes, ty, node))
    }

    /// Computes the floats that bytes stand for.
    pub(super) fn dequantized(&mut self, node: &'a NodeProto) -> Result<ValueId, Refusal> {
        only(&["DequantizeLinear"], node)?;
        self.byte_type(node)?;
        let Bytes { id: input, ty } = self.source(&node.output[0])?;
        let form = self.form(input);
        Ok(self.step(Form::Plain, &[input], "DequantizeLinear", node, |output| Dequantize {
            input,
            output,
            scale: ty.scale,
            form,
        }))
    }

    /// Gives the bytes of a QuantizeLinear as ONNX has them to what is no step of ours: what is before
    /// it is computed once, so that it may be fused.
    pub(super) fn given_out(&mut self, node: &'a NodeProto) -> Result<ValueId, Refusal> {
        only(&["QuantizeLinear"], node)?;
        let Bytes { id: input, ty } = self.quantized(&node.output[0])?;
        let form = self.form(input);
        Ok(self.step(Form::Plain, &[input], "QuantizeLinear", node, |output| GiveOut {
            input,
            output,
            signed: ty.signed,
            form,
        }))
    }
}
