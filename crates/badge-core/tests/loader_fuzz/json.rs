//! Damage to JSON documents, as values and as text.

use serde_json::{Map, Value};

use crate::random::Random;

/// Marks strings that stand for text no `Value` can hold.
const RAW: &str = "@raw:";

/// Numbers and words at the edges of what a key accepts, and beyond.
const EDGES: &str = r#"
    0 1 2 3 4 5 6 7 12 -1 0.5 1.0 1e3 -0 1024 1025 65536 65537 16777216 16777217 4294967295
    4294967296 9007199254740993 9223372036854775807 9223372036854775808 1152921504606846976
    18446744073709551615 18446744073709551616 1e308 1e-320 null true [] {} "" "0" "gelu"
"#;

/// What parsers of JSON refuse.
const NO_VALUES: &str = r#" NaN 1e999 "\ud800" 0x10 01 'a' -  , "#;

/// One change somewhere in the document.
pub(crate) fn damage(random: &mut Random, document: &mut Value) {
    let spot = descend(random, document);
    match random.below(10) {
        0..=5 => *spot = edge(random),
        6 => *spot = Value::Array(vec![spot.take()]),
        7 => *spot = nested(random, spot.take()),
        _ => match spot {
            Value::Object(object) => damage_object(random, object),
            Value::Array(array) => damage_array(random, array),
            other => *other = neighbour(random, other),
        },
    }
}

/// The document as bytes, with the marked strings as what they stand for.
pub(crate) fn text(document: &Value) -> Vec<u8> {
    let quoted = format!("\"{RAW}");
    let text = document.to_string();
    let mut parts = text.split(quoted.as_str());
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (raw, rest) = part.split_once('"').unwrap_or((part, ""));
        plain.push_str(&raw.replace('\'', "\"").replace(r"\\", r"\"));
        plain.push_str(rest);
    }
    plain.into_bytes()
}

/// Text that is no JSON value on its own, or not one that `Value` keeps.
pub(crate) fn raw(text: &str) -> Value {
    Value::String(format!("{RAW}{}", text.replace('"', "'")))
}

/// A value at the edge of what anyone expects.
pub(crate) fn edge(random: &mut Random) -> Value {
    let words = if random.chance(4) { NO_VALUES } else { EDGES };
    raw(random.word(words))
}

/// A random walk towards the leaves.
fn descend<'v>(random: &mut Random, value: &'v mut Value) -> &'v mut Value {
    let children = match value {
        Value::Object(object) => object.len(),
        Value::Array(array) => array.len(),
        _ => 0,
    };
    if children == 0 || random.chance(10) {
        return value;
    }
    let child = random.below(children);
    let child = match value {
        Value::Object(object) => object.values_mut().nth(child),
        Value::Array(array) => array.get_mut(child),
        _ => None,
    };
    descend(random, child.expect("a child below their number"))
}

fn damage_object(random: &mut Random, object: &mut Map<String, Value>) {
    let Some(key) = object
        .keys()
        .nth(random.below(object.len().max(1)))
        .cloned()
    else {
        object.insert("key".to_owned(), edge(random));
        return;
    };
    match random.below(4) {
        0 => drop(object.shift_remove(&key)),
        1 => {
            let value = object[&key].clone();
            object.insert(format!("{key}x"), value);
        }
        2 => {
            let value = object.shift_remove(&key).unwrap_or_default();
            object.insert(
                random.pick(&["", "0", "00", "+1", "a\u{0}b"]).to_owned(),
                value,
            );
        }
        // The same key twice: only the text can say so.
        _ => {
            let second = raw(&format!("0, \"{key}\": {}", random.word(EDGES)));
            object.insert("first".to_owned(), second);
        }
    }
}

fn damage_array(random: &mut Random, array: &mut Vec<Value>) {
    match (random.below(4), array.len()) {
        (0, 1..) => drop(array.remove(random.below(array.len()))),
        (1, 1..) => array.push(array[random.below(array.len())].clone()),
        (2, 2..) => array.reverse(),
        _ => array.push(edge(random)),
    }
}

/// A value close to this one, which may be as good.
fn neighbour(random: &mut Random, value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(n) => Value::from(random.pick(&[n + 1, n.saturating_sub(1), 2 * n, n / 2])),
            None => Value::from(number.as_f64().unwrap_or_default() * 3.0),
        },
        Value::String(text) => {
            let mut text = text.clone();
            text.push(random.pick(&['x', '\u{0}', 'é', '\u{10ffff}']));
            Value::from(text)
        }
        Value::Bool(flag) => Value::from(!flag),
        other => other.clone(),
    }
}

/// The value under many brackets, more than parsers follow or fewer.
fn nested(random: &mut Random, value: Value) -> Value {
    let depth = random.pick(&[3, 100, 127, 128, 5000]);
    if depth > 200 {
        return raw(&("[".repeat(depth) + &"]".repeat(depth)));
    }
    (0..depth).fold(value, |inner, _| Value::Array(vec![inner]))
}
