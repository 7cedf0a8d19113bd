//! Tensors of the protocol, as JSON and as bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::Refusal;

/// A tensor that a request brings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::http) struct InputTensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    datatype: Datatype,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    data: Value,
    /// Its values, where they came otherwise than as JSON.
    #[serde(skip)]
    values: Option<Values>,
}

/// The values of a tensor that are not JSON.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::http) enum Values {
    /// One behind the other, texts with their length before them.
    Bytes(Vec<u8>),
    Texts(Vec<Vec<u8>>),
    Integers(Vec<i64>),
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<usize>,
}

/// The types of tensors that come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(in crate::http) enum Datatype {
    #[serde(rename = "BYTES")]
    Bytes,
    #[serde(rename = "INT64")]
    Int64,
    #[serde(rename = "INT32")]
    Int32,
}

/// A tensor that goes out.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::http) struct OutputTensor {
    pub(in crate::http) name: String,
    pub(in crate::http) shape: Vec<usize>,
    pub(in crate::http) data: Data,
}

/// The values of a tensor, row by row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(in crate::http) enum Data {
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
        tensor.values = Some(Values::Bytes(own.to_vec()));
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

impl Datatype {
    /// The type of this name.
    pub(in crate::http) fn parse(name: &str) -> Option<Self> {
        match name {
            "BYTES" => Some(Self::Bytes),
            "INT64" => Some(Self::Int64),
            "INT32" => Some(Self::Int32),
            _ => None,
        }
    }
}

impl InputTensor {
    /// A tensor whose values are not JSON.
    pub(in crate::http) fn new(
        name: String,
        shape: Vec<usize>,
        datatype: Datatype,
        values: Values,
    ) -> Self {
        Self {
            name,
            shape,
            datatype,
            parameters: Parameters::default(),
            data: Value::Null,
            values: Some(values),
        }
    }

    /// The texts of a tensor of BYTES.
    pub(super) fn texts(&self) -> Result<Vec<String>, Refusal> {
        if self.datatype != Datatype::Bytes {
            return Err(self.wrong("texts have the datatype BYTES"));
        }
        let texts = match &self.values {
            None => self.flat(|value| value.as_str().map(str::to_owned), "a string")?,
            Some(Values::Bytes(bytes)) => self.texts_of_bytes(bytes)?,
            Some(Values::Texts(texts)) => {
                let texts = texts.iter().enumerate();
                let read = texts.map(|(index, text)| self.text(index, text));
                read.collect::<Result<_, _>>()?
            }
            Some(Values::Integers(_)) => return Err(self.wrong("its values are numbers")),
        };
        self.check_count(texts.len())?;
        Ok(texts)
    }

    /// The values of a tensor of integers.
    pub(super) fn integers(&self) -> Result<Vec<i64>, Refusal> {
        let values = match (&self.values, self.datatype) {
            (_, Datatype::Bytes) => {
                return Err(self.wrong("ids have the datatype INT64 or INT32"));
            }
            (None, _) => self.flat(Value::as_i64, "an integer")?,
            (Some(Values::Bytes(bytes)), Datatype::Int64) => {
                self.numbers(bytes, i64::from_le_bytes)?
            }
            (Some(Values::Bytes(bytes)), Datatype::Int32) => {
                self.numbers(bytes, |number| i64::from(i32::from_le_bytes(number)))?
            }
            (Some(Values::Integers(values)), _) => values.clone(),
            (Some(Values::Texts(_)), _) => return Err(self.wrong("its values are texts")),
        };
        self.check_count(values.len())?;
        Ok(values)
    }

    /// Numbers of N bytes each.
    fn numbers<const N: usize>(
        &self,
        bytes: &[u8],
        read: impl Fn([u8; N]) -> i64,
    ) -> Result<Vec<i64>, Refusal> {
        let (numbers, rest) = bytes.as_chunks::<N>();
        if !rest.is_empty() {
            let count = bytes.len();
            return Err(self.wrong(format!("{count} bytes are no numbers of {N} bytes each")));
        }
        Ok(numbers.iter().map(|number| read(*number)).collect())
    }

    fn text(&self, index: usize, bytes: &[u8]) -> Result<String, Refusal> {
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|e| self.wrong(format!("text {index} is not UTF-8: {e}")))?;
        Ok(text.to_owned())
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
            texts.push(self.text(texts.len(), text)?);
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
        self.data.append_to(bytes);
        let binary_data_size = bytes.len() - before;
        WrittenTensor {
            parameters: Some(WrittenSize { binary_data_size }),
            data: None,
            ..self.written()
        }
    }
}

impl Data {
    /// Adds its values as little-endian bytes, each text behind its length in four of them.
    pub(in crate::http) fn append_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(texts) => {
                for text in texts {
                    bytes.extend((text.len() as u32).to_le_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
            Self::Int64(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Self::Int32(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Self::Fp32(values) => bytes.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        }
    }

    pub(in crate::http) fn datatype(&self) -> &'static str {
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
        let odd = json!({"name": "ids", "shape": [1], "datatype": "INT64",
            "parameters": {"binary_data_size": 9}});
        let mut tensors = [tensor(odd)];
        attach(&mut tensors, &[0; 9]).unwrap();
        assert!(tensors[0].integers().is_err());
        let huge = json!({"name": "ids", "shape": [usize::MAX, 9], "datatype": "INT64",
            "data": [1]});
        assert!(tensor(huge).integers().is_err());
    }
}
