//! Bytes that are wanted, and bytes that are there.

use fewbits_onnx::proto::NodeProto;

use crate::lower::{Bytes, Lowering, Wanted, bytes};
use crate::op::Epilogue;
use crate::program::{Layout, ValueId};
use crate::refusal::Refusal;
use crate::view::ByteType;

impl<'a> Lowering<'a> {
    /// Computes the bytes that the QuantizeLinear with output `q` writes.
    pub(crate) fn quantized(&mut self, q: &'a str) -> Result<Bytes, Refusal> {
        if let Some(known) = self.bytes.get(q) {
            return known.clone();
        }
        let bytes = self.quantized_anew(q);
        self.bytes.insert(q, bytes.clone());
        bytes
    }

    fn quantized_anew(&mut self, q: &'a str) -> Result<Bytes, Refusal> {
        let Some((_, node)) = self.view.producer(q) else {
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
        if self.view.has_one_use(float)
            && let Some(id) = self.computed_on_bytes(float, ty)
        {
            return Ok(Bytes { id, ty });
        }
        let input = self.tensor(float);
        let to = ty.scale.all_bytes();
        if let Some(product) = self.open_product(float, input)
            && let Epilogue::Floats { quantize: quantize @ None, .. } = &mut product.epilogue
        {
            *quantize = Some(to);
            return Ok(Bytes {
                id: self.fuse(input, bytes(ty.scale, Layout::RowMajor), " + QuantizeLinear"),
                ty,
            });
        }
        Ok(Bytes { id: self.quantize(input, ty, Layout::RowMajor, node), ty })
    }

    pub(crate) fn byte_type(&self, node: &NodeProto) -> Result<ByteType, Refusal> {
        let why = "its integers do not have 8 bits with one constant scale";
        self.view.byte_type(node).ok_or(Refusal::of_node(why))
    }

    /// Computes the float value `name`, which a QuantizeLinear alone reads, as its bytes, if what
    /// produces it can be computed on bytes.
    fn computed_on_bytes(&mut self, name: &'a str, ty: ByteType) -> Option<ValueId> {
        let mut to = ty.scale.all_bytes();
        let mut name = name;
        let mut behind = String::new();
        loop {
            let (position, node) = self.view.producer(name)?;
            let Some((low, high)) = self.clip_bounds(node) else {
                return self.bytes_of(position, &Wanted { node, name, to, behind });
            };
            // Rounding is monotone: clipping before it is the same as clipping its result.
            let (low, high) = (low.map(|x| to.byte(x)), high.map(|x| to.byte(x)));
            to.low = to.low.max(low.unwrap_or(0));
            to.high = to.high.min(high.unwrap_or(255));
            name = node.input[0].as_str();
            if to.low > to.high || !(self.view.has_one_use(name) || self.is_source(name)) {
                return None;
            }
            behind = format!(" + {}{behind}", node.op_type());
        }
    }

    pub(crate) fn is_source(&self, name: &str) -> bool {
        self.view.producer(name).is_some_and(|(_, n)| n.is("DequantizeLinear"))
    }

    /// The bounds of a Relu or a Clip with constant ones.
    pub(crate) fn clip_bounds(&self, node: &NodeProto) -> Option<(Option<f32>, Option<f32>)> {
        if node.is("Relu") {
            return Some((Some(0.0), None));
        }
        if !node.is("Clip") {
            return None;
        }
        let bound = |i: usize, name: &str| match node.input.get(i).map_or("", String::as_str) {
            "" => Some(node.attr(name).map(|a| a.f())),
            input => self.view.scalar(input).map(Some),
        };
        Some((bound(1, "min")?, bound(2, "max")?))
    }

    /// Finds the bytes behind a float value: it is a DequantizeLinear, or moves elements of one.
    pub(crate) fn source(&mut self, float: &'a str) -> Result<Bytes, Refusal> {
        if let Some(known) = self.bytes.get(float) {
            return known.clone();
        }
        let bytes = self.source_anew(float);
        self.bytes.insert(float, bytes.clone());
        bytes
    }

    fn source_anew(&mut self, float: &'a str) -> Result<Bytes, Refusal> {
        let not_quantized = || Refusal::of_values("activations are not quantized");
        let (position, node) = self.view.producer(float).ok_or_else(not_quantized)?;
        if !node.is("DequantizeLinear") {
            let moved = self.moved(node);
            return self.noted(position, moved).ok_or_else(not_quantized);
        }
        let why = "activations do not have 8 bits with one constant scale";
        let ty = self.view.byte_type(node).ok_or(Refusal::of_values(why))?;
        let bytes = self.quantized(node.input[0].as_str())?;
        if bytes.ty.signed != ty.signed {
            return Err(Refusal::of_values("its zero point is of another type than the integers"));
        }
        Ok(self.with_meaning(bytes, ty, node))
    }

    /// The values that QuantizeLinear and DynamicQuantizeLinear nodes write, where they are bytes of the
    /// program.
    pub(crate) fn quantized_values(&self) -> Vec<(&'a str, ValueId)> {
        let mut values: Vec<(&str, ValueId)> = self
            .bytes
            .iter()
            .filter(|(name, _)| {
                self.view.producer(name).is_some_and(|(_, n)| n.is("QuantizeLinear"))
            })
            .filter_map(|(&name, bytes)| Some((name, bytes.as_ref().ok()?.id)))
            .chain(self.dynamic.iter().map(|(&(name, _), &id)| (name, id)))
            .collect();
        values.sort_unstable();
        values
    }
}
