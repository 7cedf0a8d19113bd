use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use super::*;

static CORPUS: LazyLock<Corpus> = LazyLock::new(|| Corpus::generate(42));

/// The words and signs of a text, as the tokeniser splits them.
fn words(text: &str) -> Vec<String> {
    let spaced: String = text
        .chars()
        .flat_map(|letter| {
            let sign = matches!(letter, '.' | ',' | ':');
            [sign.then_some(' '), Some(letter)].into_iter().flatten()
        })
        .collect();
    spaced
        .to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Reads a text of hearsay as a person would, knowing nothing of how it was made.
fn follow(text: &str) -> usize {
    let own = text
        .split_inclusive('.')
        .map(str::trim)
        .find(|part| part.starts_with("I "));
    let words = words(own.expect("the narrator speaks"));
    let has = |list: &[&str]| {
        words
            .iter()
            .filter(|word| list.contains(&word.as_str()))
            .count()
    };
    let reversals = has(&["disagree", "argue", "disagrees", "argues"]);
    let praise = has(&["loved", "adored", "enjoyed", "praised"]);
    assert_eq!(
        praise + has(&["hated", "loathed", "disliked", "panned"]),
        1,
        "{text}"
    );
    (praise + reversals) % 2
}

/// Naive Bayes over words: what their counts tell, blind to their order.
struct BagOfWords {
    log_odds: HashMap<String, f64>,
}

impl BagOfWords {
    fn train<'a>(examples: impl Iterator<Item = &'a GradedExample>) -> Self {
        let mut counts: HashMap<String, [f64; 2]> = HashMap::new();
        let mut totals = [0.0; 2];
        for example in examples {
            for word in words(&example.text) {
                counts.entry(word).or_insert([1.0; 2])[example.label] += 1.0;
                totals[example.label] += 1.0;
            }
        }
        let odds = |[no, yes]: [f64; 2]| (yes / totals[1]).ln() - (no / totals[0]).ln();
        Self {
            log_odds: counts
                .into_iter()
                .map(|(word, count)| (word, odds(count)))
                .collect(),
        }
    }

    fn accuracy(&self, grade: Grade) -> f64 {
        let examples: Vec<_> = CORPUS
            .test
            .iter()
            .filter(|one| one.grade == grade)
            .collect();
        let right = examples.iter().filter(|example| {
            let words = words(&example.text);
            let sum: f64 = words
                .iter()
                .filter_map(|word| self.log_odds.get(word))
                .sum();
            usize::from(sum > 0.0) == example.label
        });
        right.count() as f64 / examples.len() as f64
    }
}

#[test]
fn a_seed_stands_for_one_corpus() {
    let again = Corpus::generate(42);
    assert!(again == *CORPUS, "the same seed gave another corpus");
    assert!(
        Corpus::generate(43).test != CORPUS.test,
        "another seed gave the same corpus"
    );
}

#[test]
fn held_out_texts_occur_nowhere_else() {
    let mut held_out = HashSet::new();
    for example in CORPUS.dev.iter().chain(&CORPUS.test) {
        assert!(
            held_out.insert(words(&example.text)),
            "twice: {}",
            example.text
        );
    }
    for example in &CORPUS.train {
        assert!(
            !held_out.contains(&words(&example.text)),
            "in train too: {}",
            example.text
        );
    }
}

#[test]
fn labels_are_balanced_in_every_grade_of_every_split() {
    for (name, split) in [
        ("train", &CORPUS.train),
        ("dev", &CORPUS.dev),
        ("test", &CORPUS.test),
    ] {
        for grade in Grade::ALL {
            let labels: Vec<_> = split
                .iter()
                .filter(|one| one.grade == grade)
                .map(|one| one.label)
                .collect();
            let share = labels.iter().sum::<usize>() as f64 / labels.len() as f64;
            // Four standard deviations of a fair coin thrown this often.
            let room = 2.0 / (labels.len() as f64).sqrt();
            assert!(
                (share - 0.5).abs() < room,
                "{name} {grade}: {share} of {}",
                labels.len()
            );
        }
    }
}

#[test]
fn labels_follow_from_the_texts() {
    for example in CORPUS.train.iter().chain(&CORPUS.dev).chain(&CORPUS.test) {
        if example.grade != Grade::Easy {
            assert_eq!(follow(&example.text), example.label, "{}", example.text);
        }
    }
}

#[test]
fn words_alone_solve_the_easy_grade_and_say_nothing_about_the_hard_one() {
    let bag = BagOfWords::train(CORPUS.train.iter());
    assert!(
        bag.accuracy(Grade::Easy) > 0.97,
        "easy: {}",
        bag.accuracy(Grade::Easy)
    );
    let hard = bag.accuracy(Grade::Hard);
    assert!(
        (0.43..0.57).contains(&hard),
        "hard, all grades in training: {hard}"
    );
    // It is not for want of hard examples.
    let bag = BagOfWords::train(CORPUS.train.iter().filter(|one| one.grade == Grade::Hard));
    let hard = bag.accuracy(Grade::Hard);
    assert!(
        (0.43..0.57).contains(&hard),
        "hard, alone in training: {hard}"
    );
}

#[test]
fn every_word_is_in_the_vocabulary() {
    let vocabulary: HashSet<String> = Corpus::words().into_iter().collect();
    let mut seen = HashSet::new();
    for example in CORPUS.train.iter().chain(&CORPUS.dev).chain(&CORPUS.test) {
        for word in words(&example.text) {
            assert!(vocabulary.contains(&word), "`{word}` in: {}", example.text);
            seen.insert(word);
        }
    }
    assert_eq!(
        seen, vocabulary,
        "the vocabulary holds words that never occur"
    );
}

#[test]
fn stages_cover_the_training_examples_in_order_and_grow_harder() {
    let stages: Vec<&[GradedExample]> = CORPUS.stages().collect();
    assert!(
        stages.concat() == CORPUS.train,
        "a training example is in no stage, or in two"
    );
    let hard = |stage: &[GradedExample]| {
        stage.iter().filter(|one| one.grade == Grade::Hard).count() as f64 / stage.len() as f64
    };
    assert!(stages.is_sorted_by(|a, b| hard(a) <= hard(b)));
    assert_eq!(hard(stages[0]), 0.0);
    assert!(hard(stages.last().unwrap()) > 0.4);
}

#[test]
fn texts_stay_short() {
    let longest = CORPUS
        .train
        .iter()
        .map(|one| words(&one.text).len())
        .max()
        .unwrap();
    assert!(longest + 2 <= 48, "{longest} words and two marks");
}

#[test]
fn texts_read_like_sentences() {
    for example in &CORPUS.test {
        assert!(
            example
                .text
                .starts_with(|letter: char| letter.is_uppercase()),
            "{}",
            example.text
        );
        assert!(example.text.ends_with('.'), "{}", example.text);
        assert!(
            !example.text.contains("  ") && !example.text.contains(" ."),
            "{}",
            example.text
        );
    }
}

#[test]
fn grades_are_told_apart_by_name_and_explanation() {
    let names: HashSet<_> = Grade::ALL.map(Grade::name).into_iter().collect();
    let explanations: HashSet<_> = Grade::ALL.map(Grade::explanation).into_iter().collect();
    assert_eq!((names.len(), explanations.len()), (3, 3));
    assert_eq!(format!("{:>6}|", Grade::Hard), "  hard|");
}
