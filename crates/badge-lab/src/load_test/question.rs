//! Texts as bodies of requests, with the labels that would be right.

use anyhow::{Result, ensure};
use badge_tasks::{Example, LabelSpace, Target};
use serde_json::{Value, json};

/// What is asked, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The body of `/predict`.
    pub body: String,
    /// The label that is right, by name; none where there is not exactly one.
    pub label: Option<String>,
}

/// One question per example. With a label space, classes have the names that a server answers with.
///
/// # Errors
/// When there is no example.
pub fn questions(examples: &[Example], labels: Option<&LabelSpace>) -> Result<Vec<Question>> {
    ensure!(!examples.is_empty(), "there is no text to ask about");
    let question = |example: &Example| Question {
        body: body(example).to_string(),
        label: labels.and_then(|labels| label(example, labels)),
    };
    Ok(examples.iter().map(question).collect())
}

fn body(example: &Example) -> Value {
    match &example.pair {
        None => json!({"inputs": example.text, "truncate": true}),
        // A batch of one: a flat list of two strings means a pair to some servers only.
        Some(pair) => json!({"inputs": [[example.text, pair]], "truncate": true}),
    }
}

fn label(example: &Example, labels: &LabelSpace) -> Option<String> {
    match example.target {
        Some(Target::Class(class)) => labels.labels().get(class).cloned(),
        _ => None,
    }
}

/// The label of the highest score in an answer of `/predict`, whether it answers one text or a list
/// of one.
pub(super) fn answered_label(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let mut scores = answer.as_array()?;
    if let Some(inner) = scores.first().and_then(Value::as_array) {
        scores = inner;
    }
    let scored = scores.iter().filter_map(|entry| {
        let score = entry.get("score")?.as_f64()?;
        Some((score, entry.get("label")?.as_str()?))
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, label)| label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_pairs_have_the_bodies_that_servers_read() {
        let labels = LabelSpace::SingleLabel {
            labels: vec!["no".to_owned(), "yes".to_owned()],
        };
        let mut examples = [Example::of_text("a \"b\""), Example::of_pair("a", "b")];
        examples[1].target = Some(Target::Class(1));
        let asked = questions(&examples, Some(&labels)).unwrap();
        assert_eq!(asked[0].body, r#"{"inputs":"a \"b\"","truncate":true}"#);
        assert_eq!(asked[1].body, r#"{"inputs":[["a","b"]],"truncate":true}"#);
        assert_eq!(
            (&asked[0].label, &asked[1].label),
            (&None, &Some("yes".to_owned()))
        );
        assert_eq!(questions(&examples, None).unwrap()[1].label, None);
        assert!(questions(&[], None).is_err());
    }

    #[test]
    fn the_answer_is_the_label_of_the_highest_score() {
        for (body, label) in [
            (
                r#"[{"score":0.2,"label":"no"},{"score":0.8,"label":"yes"}]"#,
                Some("yes"),
            ),
            (
                r#"[[{"score":0.9,"label":"no"},{"score":0.1,"label":"yes"}]]"#,
                Some("no"),
            ),
            (r#"{"error":"x"}"#, None),
            ("[]", None),
            ("[[]]", None),
            ("not json", None),
        ] {
            assert_eq!(answered_label(body.as_bytes()).as_deref(), label, "{body}");
        }
    }
}
