//! Tensors of the protocol, as JSON and as bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::Refusal;

/// A tensor that a request brings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct InputTensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    datatype: Datatype,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    data: Value,
    /// Its bytes, where it came as bytes.
    #[serde(skip)]
    bytes: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<usize>,
}

/// The types of tensors that come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Datatype {
    #[serde(rename = "BYTES")]
    Bytes,
    #[serde(rename = "INT64")]
    Int64,
    #[serde(rename = "INT32")]
    Int32,
}

/// A tensor that goes out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OutputTensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

/// The values of a tensor, row by row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Data {
    Bytes(Vec<String>),
    Int64(Vec<i64>),
    Int32(Vec<i32>),
    Fp32(Vec<f32>),
}

/// Hands the bytes behind the JSON to the tensors that claim them, in their order.
pub(super) fn attach(tensors: &mut [InputTensor], bytes: &[u8]) -> Result<(), Refusal> {
    let mut rest = bytes;
    for tensor in tensors {
        let Some(size) = tensor.parameters.binary_data_size else {
            continue;
        };
        let Some((own, others)) = rest.split_at_checked(size) else {
            let left = rest.len();
            return Err(tensor.wrong(format!("it claims {size} bytes, but {left} are left")));
        };
        if !tensor.data.is_null() {
            return Err(tensor.wrong("it has `data` and `binary_data_size`"));
        }
        tensor.bytes = Some(own.to_vec());
        rest = others;
    }
    if rest.is_empty() {
        return Ok(());
    }
    let left = rest.len();
    Err(Refusal::Validation(format!(
        "`inputs`: no tensor claims the last {left} bytes"
    )))
}

impl InputTensor {
    /// The texts of a tensor of BYTES.
    pub(super) fn texts(&self) -> Result<Vec<String>, Refusal> {
        if self.datatype != Datatype::Bytes {
            return Err(self.wrong("texts have the datatype BYTES"));
        }
        let texts = if let Some(bytes) = &self.bytes {
            self.texts_of_bytes(bytes)?
        } else {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            self.flat(text, "a string")?
        };
        self.check_count(texts.len())?;
        Ok(texts)
    }

    /// The values of a tensor of integers.
    pub(super) fn integers(&self) -> Result<Vec<i64>, Refusal> {
        let values = match (&self.bytes, self.datatype) {
            (_, Datatype::Bytes) => {
                return Err(self.wrong("ids have the datatype INT64 or INT32"));
            }
            (None, _) => self.flat(Value::as_i64, "an integer")?,
            (Some(bytes), Datatype::Int64) => {
                let numbers = bytes.as_chunks::<8>().0.iter();
                numbers.map(|number| i64::from_le_bytes(*number)).collect()
            }
            (Some(bytes), Datatype::Int32) => {
                let numbers = bytes.as_chunks::<4>().0.iter();
                numbers
                    .map(|number| i64::from(i32::from_le_bytes(*number)))
                    .collect()
            }
        };
        self.check_count(values.len())?;
        Ok(values)
    }

    /// Each text behind its length in four bytes.
    fn texts_of_bytes(&self, bytes: &[u8]) -> Result<Vec<String>, Refusal> {
        let mut texts = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let cut = rest.split_first_chunk::<4>().and_then(|(length, others)| {
                let length = u32::from_le_bytes(*length) as usize;
                others.split_at_checked(length)
            });
            let Some((text, others)) = cut else {
                let problem = format!("text {} is cut off", texts.len());
                return Err(self.wrong(problem));
            };
            let text = std::str::from_utf8(text).map_err(|error| {
                self.wrong(format!("text {} is not UTF-8: {error}", texts.len()))
            })?;
            texts.push(text.to_owned());
            rest = others;
        }
        Ok(texts)
    }

    /// The values of JSON data, flat or nested as the shape is.
    fn flat<T>(&self, read: impl Fn(&Value) -> Option<T>, what: &str) -> Result<Vec<T>, Refusal> {
        let mut values = Vec::new();
        let mut open = vec![&self.data];
        while let Some(value) = open.pop() {
            match value {
                Value::Array(inner) => open.extend(inner.iter().rev()),
                other => match read(other) {
                    Some(value) => values.push(value),
                    None => return Err(self.wrong(format!("a value of `data` is not {what}"))),
                },
            }
        }
        Ok(values)
    }

    fn check_count(&self, found: usize) -> Result<(), Refusal> {
        let mut sizes = self.shape.iter();
        let expected = sizes.try_fold(1_usize, |count, size| count.checked_mul(*size));
        if expected == Some(found) {
            return Ok(());
        }
        let problem = format!("the shape {:?} does not hold {found} values", self.shape);
        Err(self.wrong(problem))
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> Refusal {
        Refusal::Validation(format!("tensor `{}`: {problem}", self.name))
    }
}

/// A tensor in the JSON of an answer: with its values, or with the number of bytes that hold them
/// behind the JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct WrittenTensor {
    name: String,
    datatype: &'static str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<WrittenSize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct WrittenSize {
    binary_data_size: usize,
}

impl OutputTensor {
    /// With its values.
    pub(super) fn written(self) -> WrittenTensor {
        WrittenTensor {
            datatype: self.data.datatype(),
            name: self.name,
            shape: self.shape,
            parameters: None,
            data: Some(self.data),
        }
    }

    /// Without its values, whose bytes are added to `bytes`.
    pub(super) fn written_beside(self, bytes: &mut Vec<u8>) -> WrittenTensor {
        let before = bytes.len();
        match &self.data {
            Data::Bytes(texts) => {
                for text in texts {
                    bytes.extend((text.len() as u32).to_le_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
            Data::Int64(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Data::Int32(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Data::Fp32(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        }
        let binary_data_size = bytes.len() - before;
        WrittenTensor {
            parameters: Some(WrittenSize { binary_data_size }),
            data: None,
            ..self.written()
        }
    }
}

impl Data {
    fn datatype(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "BYTES",
            Self::Int64(_) => "INT64",
            Self::Int32(_) => "INT32",
            Self::Fp32(_) => "FP32",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tensor(json: Value) -> InputTensor {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn values_are_flat_or_nested_and_as_many_as_the_shape_says() {
        let ids = |data: Value| {
            let json = json!({"name": "ids", "shape": [2, 2], "datatype": "INT64", "data": data});
            tensor(json).integers()
        };
        for data in [json!([1, 2, 3, 4]), json!([[1, 2], [3, 4]])] {
            assert_eq!(ids(data), Ok(vec![1, 2, 3, 4]));
        }
        for data in [
            json!([1, 2, 3]),
            json!([1, 2, 3, "4"]),
            json!(null),
            json!([1.5, 2, 3, 4]),
        ] {
            let message = ids(data.clone()).unwrap_err().to_string();
            assert!(message.starts_with("tensor `ids`: "), "{data}: {message}");
        }
    }

    #[test]
    fn bytes_are_read_as_they_are_written() {
        let out = [
            OutputTensor {
                name: "text".to_owned(),
                shape: vec![2],
                data: Data::Bytes(vec!["a".to_owned(), "ß".to_owned()]),
            },
            OutputTensor {
                name: "ids".to_owned(),
                shape: vec![1, 2],
                data: Data::Int64(vec![-1, 7]),
            },
        ];
        let mut bytes = Vec::new();
        let heads = out.map(|tensor| tensor.written_beside(&mut bytes));
        let mut tensors = heads.map(|head| tensor(serde_json::to_value(head).unwrap()));
        attach(&mut tensors, &bytes).unwrap();
        assert_eq!(tensors[0].texts().unwrap(), ["a", "ß"]);
        assert_eq!(tensors[1].integers().unwrap(), [-1, 7]);
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let json = json!({"name": "text", "shape": [1], "datatype": "BYTES",
            "parameters": {"binary_data_size": 6}});
        for bytes in [
            &b""[..],
            b"\x02\0\0\0a",
            b"\x02\0\0\0ab!",
            b"\x03\0\0\0ab",
            b"\xff\xff\xff\xffab",
            b"\x02\0\0\0\xff\xfe",
        ] {
            let mut tensors = [tensor(json.clone())];
            let read = attach(&mut tensors, bytes).and_then(|()| tensors[0].texts());
            assert!(read.is_err(), "{bytes:?}");
        }
        let huge = json!({"name": "ids", "shape": [usize::MAX, 9], "datatype": "INT64",
            "data": [1]});
        assert!(tensor(huge).integers().is_err());
    }
}
