//! The messages of `proto/inference.proto` and `proto/health.proto`. They are written here instead
//! of being made from there, so that nobody needs a compiler of such files; a test holds the two
//! together, field by field.

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

/// Values by name, as requests, answers and tensors carry them.
pub(super) type Parameters = BTreeMap<String, InferParameter>;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerLiveRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerLiveResponse {
    #[prost(bool, tag = "1")]
    pub(super) live: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerReadyRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerReadyResponse {
    #[prost(bool, tag = "1")]
    pub(super) ready: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelReadyRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelReadyResponse {
    #[prost(bool, tag = "1")]
    pub(super) ready: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerMetadataRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServerMetadataResponse {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) extensions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelMetadataRequest {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelMetadataResponse {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) versions: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) platform: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) inputs: Vec<TensorMetadata>,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<TensorMetadata>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelInferRequest {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: Parameters,
    #[prost(message, repeated, tag = "5")]
    pub(super) inputs: Vec<InferTensor>,
    #[prost(message, repeated, tag = "6")]
    pub(super) outputs: Vec<InferRequestedOutputTensor>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(super) raw_input_contents: Vec<Vec<u8>>,
}

/// `InferInputTensor` and `InferOutputTensor`, whose fields are the same.
#[derive(Clone, PartialEq, Message)]
pub(super) struct InferTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) datatype: String,
    #[prost(int64, repeated, tag = "3")]
    pub(super) shape: Vec<i64>,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: Parameters,
    #[prost(message, optional, tag = "5")]
    pub(super) contents: Option<InferTensorContents>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InferRequestedOutputTensor {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) parameters: Parameters,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelInferResponse {
    #[prost(string, tag = "1")]
    pub(super) model_name: String,
    #[prost(string, tag = "2")]
    pub(super) model_version: String,
    #[prost(string, tag = "3")]
    pub(super) id: String,
    #[prost(btree_map = "string, message", tag = "4")]
    pub(super) parameters: Parameters,
    #[prost(message, repeated, tag = "5")]
    pub(super) outputs: Vec<InferTensor>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) raw_output_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InferParameter {
    #[prost(oneof = "ParameterChoice", tags = "1, 2, 3, 4, 5")]
    pub(super) parameter_choice: Option<ParameterChoice>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ParameterChoice {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(int64, tag = "2")]
    Int64(i64),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}

#[expect(clippy::struct_field_names, reason = "the names are the protocol's")]
#[derive(Clone, PartialEq, Message)]
pub(super) struct InferTensorContents {
    #[prost(bool, repeated, tag = "1")]
    pub(super) bool_contents: Vec<bool>,
    #[prost(int32, repeated, tag = "2")]
    pub(super) int_contents: Vec<i32>,
    #[prost(int64, repeated, tag = "3")]
    pub(super) int64_contents: Vec<i64>,
    #[prost(uint32, repeated, tag = "4")]
    pub(super) uint_contents: Vec<u32>,
    #[prost(uint64, repeated, tag = "5")]
    pub(super) uint64_contents: Vec<u64>,
    #[prost(float, repeated, tag = "6")]
    pub(super) fp32_contents: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    pub(super) fp64_contents: Vec<f64>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(super) bytes_contents: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub(super) status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
pub(super) enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, MessageDescriptor, Value};

    use super::*;

    fn definitions() -> DescriptorPool {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
        let files = ["inference.proto", "health.proto"];
        let files = protox::compile(files.map(|file| folder.join(file)), [folder]).unwrap();
        DescriptorPool::from_file_descriptor_set(files).unwrap()
    }

    /// Every field of a message set, but for those of `InferParameter`, of which one can be.
    fn full(of: &MessageDescriptor) -> DynamicMessage {
        let mut message = DynamicMessage::new(of.clone());
        for field in of.fields() {
            let single = match field.kind() {
                prost_reflect::Kind::Message(inner) if field.is_map() => {
                    let value = inner.map_entry_value_field();
                    let prost_reflect::Kind::Message(value) = value.kind() else {
                        panic!("{} has plain values", field.name());
                    };
                    let key = MapKey::String("k".to_owned());
                    let entry = (key, Value::Message(full(&value)));
                    message.set_field(&field, Value::Map([entry].into()));
                    continue;
                }
                prost_reflect::Kind::Message(inner) => Value::Message(full(&inner)),
                prost_reflect::Kind::Bool => Value::Bool(true),
                prost_reflect::Kind::Int32 => Value::I32(-7),
                prost_reflect::Kind::Int64 => Value::I64(-(1 << 40)),
                prost_reflect::Kind::Uint32 => Value::U32(u32::MAX),
                prost_reflect::Kind::Uint64 => Value::U64(u64::MAX),
                prost_reflect::Kind::Float => Value::F32(0.3),
                prost_reflect::Kind::Double => Value::F64(0.1),
                prost_reflect::Kind::String => Value::String(field.name().to_owned()),
                prost_reflect::Kind::Bytes => Value::Bytes(vec![0, 255].into()),
                prost_reflect::Kind::Enum(_) => Value::EnumNumber(2),
                other => panic!("{} is a {other:?}", field.full_name()),
            };
            let value = if field.is_list() {
                Value::List(vec![single.clone(), single])
            } else {
                single
            };
            message.set_field(&field, value);
        }
        message
    }

    /// Reads a message as its definition says and writes it again: nothing may be lost, as fields
    /// that we do not know would be, nor changed, as those of another type.
    fn check<M: Message + Default + PartialEq>(pool: &DescriptorPool, name: &str) {
        let definition = pool.get_message_by_name(name);
        let definition = definition.unwrap_or_else(|| panic!("no message {name}"));
        let full = full(&definition);
        let ours = M::decode(full.encode_to_vec().as_slice()).unwrap();
        let again = DynamicMessage::decode(definition, ours.encode_to_vec().as_slice()).unwrap();
        assert_eq!(again, full, "{name}");
        assert_eq!(M::default().encoded_len(), 0, "{name}");
    }

    #[test]
    fn messages_are_those_of_their_definitions() {
        let pool = definitions();
        let of = |name: &str| format!("inference.{name}");
        check::<ServerLiveRequest>(&pool, &of("ServerLiveRequest"));
        check::<ServerLiveResponse>(&pool, &of("ServerLiveResponse"));
        check::<ServerReadyRequest>(&pool, &of("ServerReadyRequest"));
        check::<ServerReadyResponse>(&pool, &of("ServerReadyResponse"));
        check::<ModelReadyRequest>(&pool, &of("ModelReadyRequest"));
        check::<ModelReadyResponse>(&pool, &of("ModelReadyResponse"));
        check::<ServerMetadataRequest>(&pool, &of("ServerMetadataRequest"));
        check::<ServerMetadataResponse>(&pool, &of("ServerMetadataResponse"));
        check::<ModelMetadataRequest>(&pool, &of("ModelMetadataRequest"));
        check::<ModelMetadataResponse>(&pool, &of("ModelMetadataResponse"));
        check::<ModelInferRequest>(&pool, &of("ModelInferRequest"));
        check::<ModelInferResponse>(&pool, &of("ModelInferResponse"));
        check::<HealthCheckRequest>(&pool, "grpc.health.v1.HealthCheckRequest");
        check::<HealthCheckResponse>(&pool, "grpc.health.v1.HealthCheckResponse");
    }

    #[test]
    fn a_parameter_is_one_of_five_types() {
        let pool = definitions();
        let definition = pool
            .get_message_by_name("inference.InferParameter")
            .unwrap();
        for (field, value, ours) in [
            ("bool_param", Value::Bool(true), ParameterChoice::Bool(true)),
            ("int64_param", Value::I64(-3), ParameterChoice::Int64(-3)),
            (
                "string_param",
                Value::String("a".to_owned()),
                ParameterChoice::String("a".to_owned()),
            ),
            (
                "double_param",
                Value::F64(0.5),
                ParameterChoice::Double(0.5),
            ),
            (
                "uint64_param",
                Value::U64(u64::MAX),
                ParameterChoice::Uint64(u64::MAX),
            ),
        ] {
            let mut message = DynamicMessage::new(definition.clone());
            message.set_field_by_name(field, value);
            let read = InferParameter::decode(message.encode_to_vec().as_slice()).unwrap();
            assert_eq!(read.parameter_choice, Some(ours), "{field}");
        }
    }
}
