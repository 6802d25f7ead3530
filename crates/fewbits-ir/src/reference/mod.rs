//! The plain interpreter: what a program means, to the bit.
//!
//! Values lie as ONNX orders them; layouts, halos and packed weights are of no concern here. There are no
//! threads, and no vectors: what a kernel computes in floats it computes at its plain level.
//!
//! The rule of arithmetic: add up exactly in int32, convert to f32, multiply once, round half to even, add
//! the zero point, saturate. Where element by element a graph of DequantizeLinear, a float operator and
//! QuantizeLinear is replaced, its float operations are done in its order.

mod bytes;
mod floats;
pub mod integers;
mod movement;
mod product;
mod products_of_integers;
pub mod resize;

pub use floats::row_of;

use std::collections::HashMap;

use fewbits_onnx::proto::DataType;

use crate::op::{ByteScale, IntegerBinary, Op, Subgraph, SumOfIntegers, Target};
use crate::program::{Program, Step, ValueId};
use crate::shape::Shape;
use crate::{Result, RuntimeError, Tensor, Values};

/// A value as it is computed. Bytes of an activation are UINT8.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    /// The elements.
    pub tensor: Tensor,
    /// What the bytes of a dynamically quantized activation stand for.
    pub dynamic: Option<ByteScale>,
}

impl From<Tensor> for Computed {
    fn from(tensor: Tensor) -> Computed {
        Computed { tensor, dynamic: None }
    }
}

/// Another executor, which computes the subgraphs that are left to it.
pub type Fallback<'a> = &'a dyn Fn(&Subgraph, &[Tensor]) -> Result<Vec<Tensor>>;

/// Refuses subgraphs that are left to another executor.
///
/// # Errors
/// Always.
pub fn no_fallback(subgraph: &Subgraph, _: &[Tensor]) -> Result<Vec<Tensor>> {
    Err(RuntimeError::Run { reason: format!("no executor for {subgraph:?}") })
}

impl Program {
    /// Runs the program on named inputs: its outputs.
    ///
    /// # Errors
    /// If an input is missing or ill-shaped, or a step fails.
    pub fn interpret(
        &self,
        inputs: &[(String, Tensor)],
        fallback: Fallback,
    ) -> Result<Vec<(String, Tensor)>> {
        let mut values = self.interpret_all(inputs, fallback)?;
        let give = |(spec, id): &(crate::ValueSpec, ValueId)| {
            let computed = values.get(id).ok_or_else(|| not_computed(*id))?.tensor.clone();
            let tensor = match spec.data_type {
                Some(data_type) => computed.cast(data_type)?,
                None => computed,
            };
            Ok((spec.name.clone(), tensor))
        };
        let outputs = self.outputs.iter().map(give).collect();
        values.clear();
        outputs
    }

    /// Runs the program on named inputs: all values, those on the way included.
    ///
    /// # Errors
    /// As [`Program::interpret`].
    pub fn interpret_all(
        &self,
        inputs: &[(String, Tensor)],
        fallback: Fallback,
    ) -> Result<HashMap<ValueId, Computed>> {
        let mut values: HashMap<ValueId, Computed> = HashMap::new();
        for constant in &self.constants {
            values.insert(constant.id, constant.tensor.clone().widened().into());
        }
        for step in &self.once {
            run(step, &mut values, fallback)?;
        }
        let inputs = self.prologue.feed(inputs)?;
        for (spec, id) in &self.inputs {
            let given = inputs.iter().find(|(name, _)| *name == spec.name);
            let (_, tensor) = given.ok_or_else(|| RuntimeError::Input {
                input: spec.name.clone(),
                reason: "no data given for it".into(),
            })?;
            spec.check(tensor)?;
            values.insert(*id, tensor.clone().widened().into());
        }
        for step in &self.steps {
            run(step, &mut values, fallback)?;
        }
        Ok(values)
    }
}

fn not_computed(id: ValueId) -> RuntimeError {
    RuntimeError::Run { reason: format!("value {} is not computed", id.0) }
}

fn run(step: &Step, values: &mut HashMap<ValueId, Computed>, fallback: Fallback) -> Result<()> {
    let inputs: Vec<&Computed> = step
        .inputs
        .iter()
        .map(|id| values.get(id).ok_or_else(|| not_computed(*id)))
        .collect::<Result<_>>()?;
    let outputs = compute(&step.op, &inputs, fallback)?;
    for (&id, computed) in step.outputs.iter().zip(outputs) {
        values.insert(id, computed);
    }
    Ok(())
}

/// Computes one operator: its output, then what it computes on the way.
///
/// # Errors
/// If the inputs do not fit it.
pub fn compute(op: &Op, inputs: &[&Computed], fallback: Fallback) -> Result<Vec<Computed>> {
    let tensor = match op {
        Op::DynamicQuantize => return Ok(vec![bytes::dynamic_quantize(input(inputs, 0)?)?]),
        Op::MatMul(product) => return product::matmul(product, inputs),
        Op::Conv(conv) => return product::conv(conv, inputs),
        Op::Fallback(subgraph) => {
            let tensors: Vec<Tensor> = inputs.iter().map(|one| one.tensor.clone()).collect();
            let outputs = fallback(subgraph, &tensors)?;
            return Ok(outputs.into_iter().map(|tensor| tensor.widened().into()).collect());
        }
        // Only where it lies changes.
        Op::ChangeLayout(_) => input(inputs, 0)?.clone(),
        Op::Quantize(scale) => bytes::quantize(input(inputs, 0)?, *scale)?,
        Op::Dequantize(scale) => bytes::dequantize(input(inputs, 0)?, *scale)?,
        Op::GiveOut(data_type) => bytes::give_out(input(inputs, 0)?, *data_type)?,
        Op::Lut(lut) => bytes::look_up(input(inputs, 0)?, lut)?,
        Op::BytesBinary(op) => bytes::binary(op, input(inputs, 0)?, input(inputs, 1)?)?,
        Op::DequantizedBinary(op) => {
            bytes::dequantized_binary(op, input(inputs, 0)?, input(inputs, 1)?)?
        }
        Op::BytesPool(pool) => bytes::pool(pool, input(inputs, 0)?)?,
        Op::GlobalAverage(average) => bytes::global_average(average, input(inputs, 0)?)?,
        Op::Concat(concat) => movement::concat(concat, inputs)?,
        Op::Transpose(transpose) => movement::transpose(input(inputs, 0)?, &transpose.permutation)?,
        Op::Reshape(to) => {
            let tensor = input(inputs, 0)?;
            tensor.clone().reshaped(to.of(shape(tensor)?)?.dims().to_vec())?
        }
        Op::Function(function) => floats::function(*function, input(inputs, 0)?)?,
        Op::Binary(operation) => floats::binary(*operation, input(inputs, 0)?, input(inputs, 1)?)?,
        Op::Norm(norm) => floats::norm(norm, input(inputs, 0)?)?,
        Op::Softmax => floats::softmax(input(inputs, 0)?)?,
        Op::Reduce(reduce) => {
            let tensor = input(inputs, 0)?;
            let (width, to) = reduce.shapes(shape(tensor)?)?;
            let mut out = vec![0.0; to.len()];
            reduce.reduce(f32s(tensor)?, width, &mut out);
            Tensor::new(to.dims().to_vec(), out)?
        }
        Op::FloatConv(conv) => floats::conv(conv, input(inputs, 0)?)?,
        Op::FloatPool(pool) => floats::pool(pool, input(inputs, 0)?)?,
        Op::MatMulConstant(product) => floats::matmul_constant(product, input(inputs, 0)?)?,
        Op::FloatMatMul(product) => floats::matmul(product, input(inputs, 0)?, input(inputs, 1)?)?,
        Op::Attention(attention) => floats::attention(attention, inputs)?,
        Op::Gather(gather) => floats::gather(gather, input(inputs, 0)?)?,
        Op::Resize(op) => {
            let (tensor, told) = (input(inputs, 0)?, input(inputs, 1)?);
            let told = match op.target {
                Target::Scales => resize::Told::Scales(f32s(told)?),
                Target::Sizes(aspect) => resize::Told::Sizes(i64s(told)?, aspect),
            };
            let part = inputs.get(2).map(|part| f32s(&part.tensor)).transpose()?;
            let (values, to) = resize::resize(op, f32s(tensor)?, shape(tensor)?, told, part)?;
            Tensor::new(to.dims().to_vec(), values)?
        }
        Op::Cast(to) => input(inputs, 0)?.clone().cast(*to)?.widened(),
        Op::IntegerBinary(operator) => {
            let (left, right) = (input(inputs, 0)?, input(inputs, 1)?);
            let to = shape(left)?.broadcast(shape(right)?)?;
            let values = match operator {
                IntegerBinary::PowOfFloats => integers::Right::Floats(f32s(right)?),
                _ => integers::Right::Ints(i64s(right)?),
            };
            let (left, right) = ((i64s(left)?, shape(left)?), (values, shape(right)?));
            let mut out = vec![0; to.len()];
            integers::binary(*operator, left, right, to, &mut out)?;
            Tensor::new(to.dims().to_vec(), out)?
        }
        Op::SumOfIntegers(sum) => {
            let tensor = input(inputs, 0)?;
            let (to, full) = sum.shapes(shape(tensor)?)?;
            let mut out = vec![0; to.len()];
            SumOfIntegers::sum(i64s(tensor)?, shape(tensor)?, full, &mut out);
            Tensor::new(to.dims().to_vec(), out)?
        }
        Op::CumSum(sum) => {
            let tensor = input(inputs, 0)?;
            let mut out = vec![0; tensor.len()];
            sum.run(i64s(tensor)?, shape(tensor)?, &mut out)?;
            Tensor::new(tensor.shape().to_vec(), out)?
        }
        Op::ArgMax { keep_axis } => {
            let tensor = input(inputs, 0)?;
            let from = shape(tensor)?;
            let mut dims = from.dims().to_vec();
            dims.pop();
            dims.extend(keep_axis.then_some(1));
            let mut out = vec![0; from.rows()];
            integers::arg_max(f32s(tensor)?, from.last(), &mut out)?;
            Tensor::new(dims, out)?
        }
        Op::Threshold(threshold) => {
            let tensor = input(inputs, 0)?;
            let above = f32s(tensor)?.iter().map(|&x| i64::from(x > *threshold));
            Tensor::new(tensor.shape().to_vec(), above.collect::<Vec<i64>>())?
        }
        Op::Labels(labels) => {
            let tensor = input(inputs, 0)?;
            let mut out = vec![0; tensor.len()];
            integers::labels(labels, i64s(tensor)?, &mut out)?;
            Tensor::new(tensor.shape().to_vec(), out)?
        }
        Op::MatMulInteger(product) => {
            let tensors: Vec<&Tensor> = inputs.iter().map(|one| &one.tensor).collect();
            products_of_integers::matmul(product, &tensors)?
        }
        Op::ConvInteger(conv) => {
            let tensors: Vec<&Tensor> = inputs.iter().map(|one| &one.tensor).collect();
            products_of_integers::conv(conv, &tensors)?
        }
    };
    Ok(vec![tensor.into()])
}

fn input<'a>(inputs: &[&'a Computed], at: usize) -> Result<&'a Tensor> {
    let missing = || RuntimeError::Run { reason: format!("a step has no input {at}") };
    Ok(&inputs.get(at).ok_or_else(missing)?.tensor)
}

fn shape(tensor: &Tensor) -> Result<Shape> {
    Shape::new(tensor.shape())
}

fn wrong_type(tensor: &Tensor, wanted: DataType) -> RuntimeError {
    RuntimeError::Cast { from: tensor.data_type(), to: wanted }
}

fn f32s(tensor: &Tensor) -> Result<&[f32]> {
    match tensor.values() {
        Values::F32(values) => Ok(values),
        _ => Err(wrong_type(tensor, DataType::Float)),
    }
}

fn u8s(tensor: &Tensor) -> Result<&[u8]> {
    match tensor.values() {
        Values::U8(values) => Ok(values),
        _ => Err(wrong_type(tensor, DataType::Uint8)),
    }
}

fn i64s(tensor: &Tensor) -> Result<&[i64]> {
    match tensor.values() {
        Values::I64(values) => Ok(values),
        _ => Err(wrong_type(tensor, DataType::Int64)),
    }
}
