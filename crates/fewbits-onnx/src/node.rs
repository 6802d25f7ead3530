//! Building nodes and reading their attributes.

use bytes::Bytes;

use crate::proto::{
    AttributeProto, AttributeType, GraphProto, NodeProto, OperatorSetIdProto, TensorProto,
};

/// Whether a domain is that of ONNX's own operators, which has two names.
pub(crate) fn is_default_domain(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

impl OperatorSetIdProto {
    /// Whether this is the import of ONNX's own operators.
    pub(crate) fn is_default(&self) -> bool {
        is_default_domain(self.domain())
    }
}

impl NodeProto {
    /// A node of the default domain. An empty input name is an absent optional input.
    pub fn new(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: Some(op_type.to_string()),
            input: inputs.iter().map(|s| s.to_string()).collect(),
            output: outputs.iter().map(|s| s.to_string()).collect(),
            ..NodeProto::default()
        }
    }

    /// This node with an attribute added.
    pub fn with(mut self, attribute: AttributeProto) -> NodeProto {
        self.attribute.push(attribute);
        self
    }

    /// Whether this is `op_type` of the default ONNX domain.
    pub fn is(&self, op_type: &str) -> bool {
        self.op_type() == op_type && self.is_onnx()
    }

    /// Whether this is `op_type` of the `ai.onnx.ml` domain.
    pub fn is_ml(&self, op_type: &str) -> bool {
        self.op_type() == op_type && self.domain() == crate::MODEL_DOMAIN_ML
    }

    /// Whether the operator belongs to the default ONNX domain.
    pub fn is_onnx(&self) -> bool {
        is_default_domain(self.domain())
    }

    /// The node's name, or that of its first output: something to find it by.
    pub fn label(&self) -> &str {
        match self.name() {
            "" => self.output.first().map_or("", String::as_str),
            name => name,
        }
    }

    /// The name of the input number `place`, if it is given: an empty name is none.
    pub fn given_input(&self, place: usize) -> Option<&str> {
        given(&self.input, place)
    }

    /// The name of the output number `place`, if it is wanted.
    pub fn given_output(&self, place: usize) -> Option<&str> {
        given(&self.output, place)
    }

    /// The attribute `name`, if present.
    pub fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|a| a.name() == name)
    }

    /// An INT attribute, or `default`.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attr(name).map_or(default, AttributeProto::i)
    }

    /// A FLOAT attribute, or `default`.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attr(name).map_or(default, AttributeProto::f)
    }

    /// An INTS attribute, empty if absent.
    pub fn ints(&self, name: &str) -> &[i64] {
        self.attr(name).map_or(&[], |a| &a.ints)
    }

    /// A FLOATS attribute, empty if absent.
    pub fn floats(&self, name: &str) -> &[f32] {
        self.attr(name).map_or(&[], |a| &a.floats)
    }

    /// A STRING attribute, or `default`.
    pub fn string(&self, name: &str, default: &str) -> String {
        self.attr(name)
            .map_or_else(|| default.to_string(), |a| String::from_utf8_lossy(a.s()).into_owned())
    }

    /// A STRINGS attribute, empty if absent.
    pub fn strings(&self, name: &str) -> Vec<String> {
        self.attr(name).map_or_else(Vec::new, |a| {
            a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()
        })
    }

    /// A TENSOR attribute, if present.
    pub fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attr(name).and_then(|a| a.t.as_ref())
    }
}

fn given(names: &[String], place: usize) -> Option<&str> {
    names.get(place).map(String::as_str).filter(|name| !name.is_empty())
}

impl AttributeProto {
    fn named(name: &str, kind: AttributeType) -> AttributeProto {
        AttributeProto {
            name: Some(name.to_string()),
            r#type: Some(kind as i32),
            ..AttributeProto::default()
        }
    }

    /// An INT attribute.
    pub fn of_int(name: &str, value: i64) -> AttributeProto {
        AttributeProto { i: Some(value), ..Self::named(name, AttributeType::Int) }
    }

    /// A FLOAT attribute.
    pub fn of_float(name: &str, value: f32) -> AttributeProto {
        AttributeProto { f: Some(value), ..Self::named(name, AttributeType::Float) }
    }

    /// A STRING attribute.
    pub fn of_string(name: &str, value: &str) -> AttributeProto {
        AttributeProto {
            s: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..Self::named(name, AttributeType::String)
        }
    }

    /// An INTS attribute.
    pub fn of_ints(name: &str, values: &[i64]) -> AttributeProto {
        AttributeProto { ints: values.to_vec(), ..Self::named(name, AttributeType::Ints) }
    }

    /// A FLOATS attribute.
    pub fn of_floats(name: &str, values: &[f32]) -> AttributeProto {
        AttributeProto { floats: values.to_vec(), ..Self::named(name, AttributeType::Floats) }
    }

    /// A GRAPH attribute.
    pub fn of_graph(name: &str, value: GraphProto) -> AttributeProto {
        AttributeProto { g: Some(value), ..Self::named(name, AttributeType::Graph) }
    }

    /// A TENSOR attribute.
    pub fn of_tensor(name: &str, value: TensorProto) -> AttributeProto {
        AttributeProto { t: Some(value), ..Self::named(name, AttributeType::Tensor) }
    }
}
