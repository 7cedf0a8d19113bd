//! The quickstart's corpus: short reviews in three grades of difficulty, made from a seed.
//!
//! Every text has a narrator, and the label is what the narrator thinks. On easy texts the words
//! say so. On the others the narrator agrees or disagrees with somebody, who may do the same, until
//! somebody says what they think; other people talk too. Roots and reversals are drawn so that the
//! words alone say nothing about the label of a hard text: it takes the order of the words, and a
//! model needs blocks to follow it.

mod grammar;

use std::collections::HashSet;
use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use grammar::Plan;

/// The names of the labels, by index.
pub const LABELS: [&str; 2] = ["negative", "positive"];

/// Examples to train on, to choose an operating point on, and to report.
///
/// No text of `dev` or `test` occurs anywhere else. `train` may hold a short text more than once,
/// as it runs through the stages of [`Corpus::stages`]: texts with few reversals come first, since
/// following one link must be learned before following three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// In the order of training.
    pub train: Vec<GradedExample>,
    /// Held out, for calibration.
    pub dev: Vec<GradedExample>,
    /// Held out, for the report.
    pub test: Vec<GradedExample>,
    stages: Vec<Range<usize>>,
}

/// One text, its label and how hard it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GradedExample {
    /// The text.
    pub text: String,
    /// A second segment; none of this corpus's texts has one.
    pub pair: Option<String>,
    /// Index into [`LABELS`].
    pub label: usize,
    /// How hard it is.
    pub grade: Grade,
}

/// How hard a text is, by the way its label follows from its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// The words say it.
    Easy,
    /// The narrator speaks first, or little is reversed.
    Medium,
    /// The narrator is found among others, and three to five links reverse the verdict.
    Hard,
}

impl Grade {
    /// All grades, the easiest first.
    pub const ALL: [Self; 3] = [Self::Easy, Self::Medium, Self::Hard];

    /// The grade's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Medium => "medium",
            Self::Hard => "hard",
        }
    }

    /// What makes a text of this grade as hard as it is, in one line.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Easy => "the words say it outright",
            Self::Medium => "the narrator agrees or disagrees with others, near the start",
            Self::Hard => "three to five disagreements to follow, after somebody else has spoken",
        }
    }
}

impl Display for Grade {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl Corpus {
    /// The corpus that `seed` stands for, the same on every machine.
    pub fn generate(seed: u64) -> Self {
        let mut held_out = HashSet::new();
        let dev = held_out_split(&mut stream(seed, 1), &mut held_out);
        let test = held_out_split(&mut stream(seed, 2), &mut held_out);
        let mut random = stream(seed, 0);
        let (mut train, mut stages) = (Vec::new(), Vec::new());
        for (cost_max, size) in STAGES {
            let start = train.len();
            while train.len() < start + size {
                let draft = Draft::draw(&mut random, &TRAIN_MIX);
                if draft.cost <= cost_max && !held_out.contains(&draft.example.text) {
                    train.push(draft.example);
                }
            }
            stages.push(start..train.len());
        }
        Self {
            train,
            dev,
            test,
            stages,
        }
    }

    /// The training examples by stage, in the order in which to train on them.
    ///
    /// A stage holds the texts of the stages before it and longer ones. Shuffle within a stage.
    pub fn stages(&self) -> impl Iterator<Item = &[GradedExample]> {
        self.stages.iter().map(|stage| &self.train[stage.clone()])
    }

    /// Every word and sign the corpus can hold, in lower case, each once, in a fixed order.
    pub fn words() -> Vec<String> {
        grammar::words()
    }
}

/// The most that may have to be followed in a stage of training, and the stage's examples.
///
/// 2400 steps of 32: five short stages, then the whole range.
const STAGES: [(usize, usize); 6] = [
    (1, 6_144),
    (2, 6_144),
    (3, 6_144),
    (4, 6_144),
    (5, 6_144),
    (6, 46_080),
];
/// Grades in training: tenths.
const TRAIN_MIX: [Grade; 10] = mix(1, 4);
/// Grades in the held-out splits: tenths.
const HELD_OUT_MIX: [Grade; 10] = mix(4, 3);
const HELD_OUT_SIZE: usize = 1_500;

const fn mix(easy: usize, medium: usize) -> [Grade; 10] {
    let mut grades = [Grade::Hard; 10];
    let mut at = 0;
    while at < easy + medium {
        grades[at] = if at < easy {
            Grade::Easy
        } else {
            Grade::Medium
        };
        at += 1;
    }
    grades
}

/// An example and how much there is to follow in it.
struct Draft {
    example: GradedExample,
    cost: usize,
}

impl Draft {
    fn draw(random: &mut ChaCha8Rng, grades: &[Grade]) -> Self {
        let grade = pick(random, grades);
        let plan = match grade {
            Grade::Easy => None,
            Grade::Medium => Some(medium(random)),
            Grade::Hard => Some(hard(random)),
        };
        let (text, label) = match plan {
            None => grammar::outright(random),
            Some(plan) => grammar::hearsay(random, plan),
        };
        let cost = plan.map_or(0, |plan| plan.reversals + usize::from(plan.before > 0));
        Self {
            example: GradedExample {
                text,
                pair: None,
                label,
                grade,
            },
            cost,
        }
    }
}

fn medium(random: &mut ChaCha8Rng) -> Plan {
    if random.random_bool(0.6) {
        let reversals = pick(random, &[0, 1, 2, 3]);
        let agreements = agreements(random, reversals);
        let after = pick(random, &[0, 1, 2]);
        Plan {
            links: reversals + agreements,
            reversals,
            before: 0,
            after,
        }
    } else {
        let reversals = pick(random, &[0, 1]);
        let agreements = agreements(random, reversals);
        let (before, after) = (pick(random, &BEFORE), pick(random, &AFTER));
        Plan {
            links: reversals + agreements,
            reversals,
            before,
            after,
        }
    }
}

fn hard(random: &mut ChaCha8Rng) -> Plan {
    // As many odd counts as even ones: what the last one said tells nothing about the label.
    let reversals = pick(random, &[3, 4, 4, 5]);
    let agreements = if reversals < 4 {
        agreements(random, reversals)
    } else {
        0
    };
    let (before, after) = (pick(random, &BEFORE), pick(random, &AFTER));
    Plan {
        links: reversals + agreements,
        reversals,
        before,
        after,
    }
}

const BEFORE: [usize; 4] = [1, 2, 2, 3];
const AFTER: [usize; 3] = [0, 0, 1];

/// Links that agree beside `reversals`, of which at least one link results.
fn agreements(random: &mut ChaCha8Rng, reversals: usize) -> usize {
    if reversals == 0 {
        1
    } else {
        random.random_range(0..2)
    }
}

fn held_out_split(random: &mut ChaCha8Rng, taken: &mut HashSet<String>) -> Vec<GradedExample> {
    let mut examples = Vec::with_capacity(HELD_OUT_SIZE);
    while examples.len() < HELD_OUT_SIZE {
        let draft = Draft::draw(random, &HELD_OUT_MIX);
        if taken.insert(draft.example.text.clone()) {
            examples.push(draft.example);
        }
    }
    examples
}

/// One of the independent random streams of a seed.
fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    random
}

fn pick<T: Copy>(random: &mut ChaCha8Rng, choices: &[T]) -> T {
    *choices.choose(random).expect("no list of choices is empty")
}

#[cfg(test)]
mod tests;
