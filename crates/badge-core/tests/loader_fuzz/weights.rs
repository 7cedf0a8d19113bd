//! A safetensors file in parts that can be damaged one by one.

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use badge_core::checkpoint::layout::TensorSpec;

use crate::json;
use crate::random::Random;

/// A file before it is written: one header, the values behind it.
pub(crate) struct File {
    header: Value,
    values: Vec<u8>,
    /// What is added to the header's true length.
    length_error: u64,
    padding: usize,
}

/// One tensor of the header.
struct Entry {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
}

impl File {
    /// A good file that holds the tensors of a layout, in one of the types that weights have.
    pub(crate) fn of(random: &mut Random, layout: &[TensorSpec]) -> Self {
        let dtype = random.word("F32 F32 F16 BF16 F64");
        let mut entries: Vec<_> = layout
            .iter()
            .map(|spec| Entry {
                name: spec.name.clone(),
                dtype,
                shape: spec.shape.clone(),
            })
            .collect();
        if random.chance(20) {
            damage_entries(random, &mut entries);
        }
        let mut header = Map::new();
        if random.chance(70) {
            header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        }
        let mut values = Vec::new();
        for entry in entries {
            let start = values.len();
            let count = entry.shape.iter().product();
            (0..count).for_each(|_| values.extend(value(random, entry.dtype)));
            let offsets = [start, values.len()];
            let info = json!({"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets});
            header.insert(entry.name, info);
        }
        Self {
            header: Value::Object(header),
            values,
            length_error: 0,
            padding: random.below(8),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = json::text(&self.header);
        text.resize(text.len() + self.padding, b' ');
        let length = (text.len() as u64).wrapping_add(self.length_error);
        [length.to_le_bytes().to_vec(), text, self.values.clone()].concat()
    }

    /// One change to the header, its length or the values.
    pub(crate) fn damage(&mut self, random: &mut Random) {
        match random.below(12) {
            0 => json::damage(random, &mut self.header),
            1 => self.length_error = random.pick(&[1, u64::MAX, 8, 1 << 20, 1 << 27, 1 << 60]),
            2 => self.values.truncate(random.below(self.values.len().max(1))),
            3 => self
                .values
                .resize(self.values.len() + 1 + random.below(9), 0),
            4 | 5 => self.spoil_values(random),
            6 => self.rename_tensor(random),
            7 => self.repeat_tensor(random),
            _ => self.damage_tensor(random),
        }
    }

    /// Bytes that are NaN or infinite in one type or another.
    fn spoil_values(&mut self, random: &mut Random) {
        let place = random.below(self.values.len().max(1));
        let pattern = random.pick(&[
            [0xff; 8],
            [0, 0, 0x80, 0x7f, 0, 0, 0xf0, 0x7f],
            [0, 0x7c, 0, 0xfc, 0, 0, 0, 0],
        ]);
        let end = self.values.len();
        for (byte, bad) in self.values[place.min(end)..].iter_mut().zip(pattern) {
            *byte = bad;
        }
    }

    fn names(&self) -> Vec<String> {
        let object = self.header.as_object();
        object.map_or_else(Vec::new, |object| object.keys().cloned().collect())
    }

    /// Another spelling, another tensor's name, or one that means something else.
    fn rename_tensor(&mut self, random: &mut Random) {
        let names = self.names();
        let (Some(object), false) = (self.header.as_object_mut(), names.is_empty()) else {
            return;
        };
        let name = random.pick(&names);
        let new = match random.below(7) {
            0 => name.replace("weight", "gamma"),
            1 => name.replace("bias", "beta"),
            2 => name
                .split_once('.')
                .map_or(String::new(), |(_, bare)| bare.to_owned()),
            3 => format!("bert.{name}"),
            4 => "__metadata__".to_owned(),
            5 => "bert.encoder.pooler.1.dense.weight".to_owned(),
            _ => random.pick(&names),
        };
        if let Some(value) = object.shift_remove(&name) {
            object.insert(new, value);
        }
    }

    /// The same name twice in the text of the header.
    fn repeat_tensor(&mut self, random: &mut Random) {
        let names = self.names();
        let (Some(object), false) = (self.header.as_object_mut(), names.is_empty()) else {
            return;
        };
        let name = random.pick(&names);
        let value = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
        let text = format!("{value}, \"{name}\": {}", object[&name]);
        object.insert(random.pick(&["a".to_owned(), name]), json::raw(&text));
    }

    /// A change to the type, shape or offsets of one tensor.
    fn damage_tensor(&mut self, random: &mut Random) {
        let names = self.names();
        if names.is_empty() {
            return;
        }
        let other = self.header[random.pick(&names).as_str()].clone();
        let tensor = &mut self.header[random.pick(&names).as_str()];
        if !tensor.is_object() {
            return;
        }
        match random.below(7) {
            0 => tensor["dtype"] = random.word("I32 I64 U8 F4 F8_E4M3 C64 f32 F16 BOOL").into(),
            1 => tensor["data_offsets"] = other["data_offsets"].clone(),
            2 => tensor["shape"] = other["shape"].clone(),
            3 => *tensor = other,
            4 => {
                let numbers = random.word("data_offsets shape");
                json::damage(random, &mut tensor[numbers]);
            }
            5 => tensor["shape"] = json!([1u64 << 60, random.pick(&[0, 1, 8, 16, 1u64 << 60])]),
            _ => {
                let shift = random.pick(&[-4_i64, -1, 1, 4, 1 << 40]);
                for offset in tensor["data_offsets"].as_array_mut().into_iter().flatten() {
                    *offset = (offset.as_i64().unwrap_or_default().saturating_add(shift)).into();
                }
            }
        }
    }
}

/// Files that are good by themselves and hold other tensors than the model wants.
fn damage_entries(random: &mut Random, entries: &mut Vec<Entry>) {
    let place = random.below(entries.len());
    let extra = |name: &str, dtype, shape: &[usize]| Entry {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    match random.below(9) {
        0 => drop(entries.remove(place)),
        1 => entries.push(extra("lm_head.weight", "F32", &[3, 2])),
        2 => entries.push(extra("bert.embeddings.position_ids", "I64", &[1, 10])),
        3 => entries.push(extra("", "F32", &[])),
        4 => entries.push(extra("empty", "F16", &[0, 1 << 60])),
        5 => entries[place].dtype = random.word("I32 U8 BOOL I8 F64 F16"),
        6 => entries[place].shape.reverse(),
        7 => entries[place].shape.push(1),
        _ => entries.reverse(),
    }
}

/// One value of a type, little-endian.
fn value(random: &mut Random, dtype: &str) -> Vec<u8> {
    let value = f32::from(random.byte()) / 64.0 - 2.0;
    match dtype {
        "F16" => f16::from_f32(value).to_le_bytes().to_vec(),
        "BF16" => bf16::from_f32(value).to_le_bytes().to_vec(),
        "F64" => f64::from(value).to_le_bytes().to_vec(),
        "I64" => 7_i64.to_le_bytes().to_vec(),
        "U8" | "BOOL" | "I8" => vec![1],
        _ => value.to_le_bytes().to_vec(),
    }
}
