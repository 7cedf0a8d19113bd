//! Messages of gRPC to what the protocol asks, and its answers to messages.

use serde_json::{Map, Value};

use super::messages::{
    InferParameter, InferTensor, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ParameterChoice, Parameters as WrittenParameters, TensorMetadata,
};
use crate::http::inference_protocol::inference::{
    Described, Inference, Inferred, Parameters, WantedOutput,
};
use crate::http::inference_protocol::tensor::{Data, Datatype, InputTensor, OutputTensor, Values};
use crate::refusal::Refusal;

impl ModelInferRequest {
    /// What the request asks for.
    ///
    /// # Errors
    /// Names the tensor or parameter that is wrong.
    pub(super) fn read(self) -> Result<Inference, Refusal> {
        let (count, raw) = (self.inputs.len(), self.raw_input_contents.len());
        if raw > 0 && raw != count {
            return Err(Refusal::Validation(format!(
                "`raw_input_contents`: {raw} for {count} tensors; all tensors come so, or none"
            )));
        }
        let mut raw = self.raw_input_contents.into_iter();
        let inputs = self.inputs.into_iter();
        let outputs = self.outputs.into_iter();
        Ok(Inference {
            parameters: parameters(self.parameters)?,
            inputs: inputs
                .map(|tensor| tensor.read(raw.next()))
                .collect::<Result<_, _>>()?,
            outputs: outputs
                .map(|output| WantedOutput::of(output.name))
                .collect(),
        })
    }
}

/// Parameters as REST has them: the names and types are the same.
fn parameters(written: WrittenParameters) -> Result<Parameters, Refusal> {
    let wrong =
        |name: &str, problem: &str| Refusal::Validation(format!("parameter `{name}`: {problem}"));
    let mut all = Map::new();
    for (name, InferParameter { parameter_choice }) in written {
        let value = match parameter_choice {
            None => Value::Null,
            Some(ParameterChoice::Bool(value)) => value.into(),
            Some(ParameterChoice::Int64(value)) => value.into(),
            Some(ParameterChoice::Uint64(value)) => value.into(),
            Some(ParameterChoice::String(value)) => value.into(),
            Some(ParameterChoice::Double(value)) if value.is_finite() => value.into(),
            Some(ParameterChoice::Double(value)) => {
                return Err(wrong(&name, &format!("{value} is no number")));
            }
        };
        // One by one, so that the one that is wrong can be named.
        let alone = Map::from_iter([(name.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<Parameters>(alone.into()) {
            return Err(wrong(&name, &error.to_string()));
        }
        all.insert(name, value);
    }
    let read = serde_json::from_value(all.into());
    Ok(read.expect("each of them has been read"))
}

impl InferTensor {
    /// The tensor, whose values are `raw` where there are such.
    fn read(self, raw: Option<Vec<u8>>) -> Result<InputTensor, Refusal> {
        let name = self.name;
        let wrong = |problem: String| Refusal::Validation(format!("tensor `{name}`: {problem}"));
        let Some(datatype) = Datatype::parse(&self.datatype) else {
            let datatype = self.datatype;
            return Err(wrong(format!(
                "its datatype is `{datatype}`; there are BYTES, INT64 and INT32"
            )));
        };
        let sizes = self.shape.iter().map(|size| usize::try_from(*size));
        let Ok(shape) = sizes.collect() else {
            let shape = self.shape;
            return Err(wrong(format!("no size of the shape {shape:?} is below 0")));
        };
        let contents = self.contents.unwrap_or_default();
        let values = match raw {
            Some(_) if contents != InferTensorContents::default() => {
                return Err(wrong(
                    "it has `contents`, and `raw_input_contents` as well".to_owned(),
                ));
            }
            Some(bytes) => Values::Bytes(bytes),
            None => contents.values(datatype).map_err(wrong)?,
        };
        Ok(InputTensor::new(name, shape, datatype, values))
    }
}

impl InferTensorContents {
    /// The values in the field of a datatype; the others must be empty.
    fn values(mut self, datatype: Datatype) -> Result<Values, String> {
        let (field, values) = match datatype {
            Datatype::Bytes => {
                let texts = std::mem::take(&mut self.bytes_contents);
                ("bytes_contents", Values::Texts(texts))
            }
            Datatype::Int64 => {
                let numbers = std::mem::take(&mut self.int64_contents);
                ("int64_contents", Values::Integers(numbers))
            }
            Datatype::Int32 => {
                let numbers = std::mem::take(&mut self.int_contents).into_iter();
                let numbers = numbers.map(i64::from).collect();
                ("int_contents", Values::Integers(numbers))
            }
        };
        if self == Self::default() {
            Ok(values)
        } else {
            Err(format!("its values belong into `{field}` alone"))
        }
    }
}

impl ModelInferResponse {
    /// An answer, with the values of its tensors as bytes or in the fields of their types.
    pub(super) fn written(inferred: Inferred, as_bytes: bool) -> Self {
        let policy = InferParameter {
            parameter_choice: Some(ParameterChoice::String(inferred.policy)),
        };
        let mut message = Self {
            parameters: WrittenParameters::from([("policy".to_owned(), policy)]),
            ..Self::default()
        };
        for (tensor, _) in inferred.outputs {
            if as_bytes {
                let mut bytes = Vec::new();
                tensor.data.append_to(&mut bytes);
                message.raw_output_contents.push(bytes);
            }
            let contents = !as_bytes;
            message.outputs.push(InferTensor::written(tensor, contents));
        }
        message
    }
}

impl InferTensor {
    fn written(tensor: OutputTensor, has_contents: bool) -> Self {
        let OutputTensor { name, shape, data } = tensor;
        Self {
            name,
            datatype: data.datatype().to_owned(),
            shape: shape.into_iter().map(|size| size as i64).collect(),
            contents: has_contents.then(|| data.into()),
            ..Self::default()
        }
    }
}

impl From<Data> for InferTensorContents {
    fn from(data: Data) -> Self {
        let mut contents = Self::default();
        match data {
            Data::Bytes(texts) => {
                let texts = texts.into_iter().map(String::into_bytes);
                contents.bytes_contents = texts.collect();
            }
            Data::Int64(values) => contents.int64_contents = values,
            Data::Int32(values) => contents.int_contents = values,
            Data::Fp32(values) => contents.fp32_contents = values,
        }
        contents
    }
}

impl From<Described> for TensorMetadata {
    fn from((name, datatype, shape): Described) -> Self {
        Self {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape,
        }
    }
}
