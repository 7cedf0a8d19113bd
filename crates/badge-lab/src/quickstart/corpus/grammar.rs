//! The sentences of the corpus: their words, and what the narrator of each text thinks.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

/// What a text is made of.
///
/// The narrator hands their verdict on through `links` people to somebody who says what they
/// think; `reversals` of these links disagree. Other people may talk `before` and `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Links from the narrator to the one who says what they think.
    pub(super) links: usize,
    /// How many of the links disagree.
    pub(super) reversals: usize,
    /// People in a sentence of others that comes before, 0 for none.
    pub(super) before: usize,
    /// People in a sentence of others that comes after, 0 for none.
    pub(super) after: usize,
}

const NAMES: [&str; 12] = [
    "Ann", "Bob", "Cara", "Dan", "Eve", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kate", "Liam",
];
const THINGS: [&str; 6] = ["film", "play", "novel", "song", "concert", "show"];
const ASPECTS: [&str; 10] = [
    "soup", "wine", "bread", "service", "music", "dessert", "acting", "story", "ending", "dialogue",
];
const DEGREES: [&str; 4] = ["very", "truly", "quite", "really"];
/// Adjectives by verdict.
const ADJECTIVES: [[&str; 8]; 2] = [
    [
        "awful", "dreadful", "bland", "terrible", "boring", "poor", "tedious", "clumsy",
    ],
    [
        "wonderful",
        "delightful",
        "lovely",
        "superb",
        "charming",
        "great",
        "brilliant",
        "excellent",
    ],
];
/// Verbs by verdict.
const VERDICTS: [[&str; 4]; 2] = [
    ["hated", "loathed", "disliked", "panned"],
    ["loved", "adored", "enjoyed", "praised"],
];
/// What the narrator does, by whether the verdict is reversed.
const OWN_LINKS: [[&str; 2]; 2] = [["agree", "side"], ["disagree", "argue"]];
/// What anybody else does, by whether the verdict is reversed.
const LINKS: [[&str; 2]; 2] = [["agrees", "sides"], ["disagrees", "argues"]];
/// All other words and signs.
const FRAME: [&str; 14] = [
    ".", ",", ":", "i", "the", "was", "and", "found", "what", "a", "said", "it", "with", "who",
];

/// Every word and sign a text can hold, in lower case, each once, in a fixed order.
pub(super) fn words() -> Vec<String> {
    let lists: [&[&str]; 5] = [&FRAME, &NAMES, &THINGS, &ASPECTS, &DEGREES];
    let by_verdict = ADJECTIVES
        .as_flattened()
        .iter()
        .chain(VERDICTS.as_flattened());
    let links = OWN_LINKS.as_flattened().iter().chain(LINKS.as_flattened());
    let words = lists.into_iter().flatten().chain(by_verdict).chain(links);
    words.map(|word| word.to_lowercase()).collect()
}

/// A text whose words say the verdict outright, and that verdict.
pub(super) fn outright(random: &mut ChaCha8Rng) -> (String, usize) {
    let verdict = random.random_range(0..2);
    let name = pick(random, &NAMES);
    let thing = pick(random, &THINGS);
    let verb = pick(random, &VERDICTS[verdict]);
    let degree = pick(random, &DEGREES);
    let [first, second] = two(random, &ASPECTS);
    let [kind, other] = two(random, &ADJECTIVES[verdict]);
    let text = match random.random_range(0..4) {
        0 => format!("{name} {verb} the {thing}: the {first} was {degree} {kind}."),
        1 => format!("The {first} was {kind} and the {second} was {degree} {other}."),
        2 => format!("I {verb} the {first} and found the {second} {kind}."),
        _ => format!("What a {kind} {thing}, {name} said, and the {first} was {other}."),
    };
    (text, verdict)
}

/// A text in which the narrator's verdict follows from what others think, and that verdict.
pub(super) fn hearsay(random: &mut ChaCha8Rng, plan: Plan) -> (String, usize) {
    let mut people = NAMES.to_vec();
    people.shuffle(random);
    let mut reversed: Vec<bool> = (0..plan.links).map(|at| at < plan.reversals).collect();
    reversed.shuffle(random);
    let verdict: usize = random.random_range(0..2);
    let thing = pick(random, &THINGS);
    let voice = pick(random, &VERDICTS[verdict]);

    let before = (plan.before > 0).then(|| others(random, &people[..plan.before]));
    let people = &people[plan.before..];
    let mut own = String::from("I");
    for (at, (person, reversed)) in people.iter().zip(reversed).enumerate() {
        let words = if at == 0 { &OWN_LINKS } else { &LINKS };
        let link = pick(random, &words[usize::from(reversed)]);
        own.push_str(&passed_on(link, person));
    }
    let people = &people[plan.links..];
    let after = (plan.after > 0).then(|| others(random, &people[..plan.after]));

    let sentences: Vec<String> = before
        .into_iter()
        .chain([format!("{own} {voice} the {thing}.")])
        .chain(after)
        .collect();
    (sentences.join(" "), (verdict + plan.reversals) % 2)
}

/// A sentence about what other people think, which does not concern the narrator.
fn others(random: &mut ChaCha8Rng, people: &[&str]) -> String {
    let mut sentence = people[0].to_owned();
    for person in &people[1..] {
        let link = pick(random, LINKS.as_flattened());
        sentence.push_str(&passed_on(link, person));
    }
    let voice = pick(random, VERDICTS.as_flattened());
    format!("{sentence} {voice} it.")
}

/// The words that hand a verdict on to `person`.
fn passed_on(link: &str, person: &str) -> String {
    format!(" {link} with {person} who")
}

fn pick<'a>(random: &mut ChaCha8Rng, words: &[&'a str]) -> &'a str {
    words.choose(random).expect("no list of words is empty")
}

/// Two different words.
fn two<'a>(random: &mut ChaCha8Rng, words: &[&'a str]) -> [&'a str; 2] {
    let mut chosen = words.choose_multiple(random, 2).copied();
    let mut next = || chosen.next().expect("every list of words has two");
    [next(), next()]
}
