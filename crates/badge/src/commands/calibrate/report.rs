//! What people read of a calibration.

use std::fmt::Write;

use badge_lab::calibration::{Search, point_table};
use badge_lab::tables::percent;
use badge_tasks::MetricKind;

use super::{Answer, CalibrateArgs};

/// The answer as text.
pub(super) fn text(answer: &Answer, search: &Search, args: &CalibrateArgs) -> String {
    let Answer {
        task,
        split,
        rows,
        metric,
        computed_by,
        policies_tried,
        search_seconds,
        ..
    } = answer;
    let logits = if answer.logits_from_cache {
        "stored logits"
    } else {
        "logits computed and stored"
    };
    let mut text = format!(
        "{task}, {split} split, {rows} rows, {metric} in percent; computed by {computed_by}\n\
         Asked for: {}. {logits}; {policies_tried} policies replayed in {search_seconds:.2} s; \
         those worth having:\n\n{}\n",
        search.goal,
        point_table(search).to_text(),
    );
    text += &temperatures(answer);
    text += &verdict(answer, search);
    if let Some(calibration) = &answer.calibration {
        let _ = writeln!(
            text,
            "\nIn {}: exit_calibration.json, which predict reads, and its record.\n\
             Report it on rows that chose nothing:\n  badge eval --model {} --task {} --split test \
             --policy {}",
            args.held_out.model, args.held_out.model, args.held_out.task, calibration.policy,
        );
    }
    text
}

fn temperatures(answer: &Answer) -> String {
    if answer.temperatures.is_empty() {
        return String::new();
    }
    let each = answer.temperatures.iter();
    let each: Vec<_> = each
        .map(|fitted| format!("{} at exit {}", rounded(fitted.temperature), fitted.exit))
        .collect();
    format!(
        "Temperatures that make the probabilities likeliest: {}.\n\n",
        each.join(", ")
    )
}

fn rounded(temperature: f64) -> String {
    format!("{temperature:.2}")
}

fn verdict(answer: &Answer, search: &Search) -> String {
    if let Some(refusal) = &answer.refusal {
        return format!("{}\n", refusal.text);
    }
    let (Some(chosen), Some(calibration)) = (search.chosen(), &answer.calibration) else {
        return String::new();
    };
    let mut text = format!(
        "Chosen: {}, score {} (full {}), layer speed-up {:.2}x.\n",
        chosen.spec,
        percent(chosen.replayed.score),
        percent(answer.full_score),
        chosen.replayed.layer_speedup,
    );
    let (Some(certificate), Some(promise)) = (&calibration.certificate, &answer.promise) else {
        text +=
            "It is not certified: on other rows it can lose more (--confidence 0.95 certifies).\n";
        return text;
    };
    let _ = writeln!(
        text,
        "{promise}\nThat rests on {} dev rows, on which it was so for {:.2} %, and on new rows being \
         drawn as they were.",
        certificate.rows,
        100.0 * certificate.mean_loss,
    );
    if certificate.loss_scale.is_none() && answer.metric != MetricKind::Accuracy.name() {
        let _ = writeln!(
            text,
            "It speaks of rows: {} itself is no mean over rows, and nothing is promised of it.",
            answer.metric,
        );
    }
    text
}
