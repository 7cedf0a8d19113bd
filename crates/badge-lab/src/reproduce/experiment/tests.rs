use super::*;

const TEXT: &str = r#"
title = "What is compared"
paper = "table1"
methods = ["joint", "badge"]
placements = ["block", "ffn"]
ranks = [4, 16]
seeds = [1, 2]
[budget]
epochs = 2
patience = 2
max-length = 32
[curves]
points = 5
timed-rows = 3
of = [{ method = "badge", policies = ["dge", "lte"] }]
[[tasks]]
task = "mrpc"
batch-sizes = [16, 64]
learning-rates = [1e-5]
activations = ["tanh"]
[[backbones]]
name = "tiny"
source = "tiny"
blocks = 3
"#;

fn told(edit: impl Fn(&str) -> String) -> String {
    let error = Experiment::parse("mine", &edit(TEXT), "mine.toml").unwrap_err();
    format!("{error:#}")
}

#[test]
fn the_rows_of_a_table_are_methods_with_the_bypasses_that_they_have() {
    let experiment = Experiment::parse("mine", TEXT, "mine.toml").unwrap();
    let names: Vec<_> = experiment
        .variants()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        names,
        ["joint", "badge-r4", "badge", "badge-ffn-r4", "badge-ffn"]
    );
    let lte: Vec<_> = experiment.variants().iter().map(|v| v.lte).collect();
    assert_eq!(
        lte,
        [false, true, true, true, true],
        "the head is trained where it is asked"
    );
}

#[test]
fn impossible_grids_are_refused_by_file_and_key() {
    for (from, to, key) in [
        ("ranks = [4, 16]", "ranks = [0]", "`ranks`: 0"),
        (
            "ranks = [4, 16]",
            "ranks = [4, 4]",
            "`ranks`: 4 stands there twice",
        ),
        (
            "ranks = [4, 16]",
            "ranks = []",
            "`ranks`: needs at least one",
        ),
        ("seeds = [1, 2]", "seeds = []", "`seeds`"),
        ("epochs = 2", "epochs = 0", "`budget.epochs`: 0"),
        (
            "[16, 64]",
            "[48]",
            "`batch-sizes`: 48 rows are no whole number",
        ),
        ("[1e-5]", "[0.0]", "`learning-rates`: 0"),
        (
            "[\"joint\", \"badge\"]",
            "[\"joint\"]",
            "`placements`: none of the methods",
        ),
        (
            "method = \"badge\"",
            "method = \"two-stage\"",
            "`curves.of`: two-stage is not among",
        ),
        ("\"dge\", ", "\"full\", ", "`curves.of.policies`: full"),
        ("blocks = 3", "blocks = 0", "`backbones.blocks`: 0"),
        ("ranks = [4, 16]", "rank = 16", "unknown field `rank`"),
        (
            "\"joint\", \"badge\"",
            "\"wishful\"",
            "unknown variant `wishful`",
        ),
    ] {
        let told = told(|text| text.replace(from, to));
        assert!(told.starts_with("mine.toml: "), "{told}");
        assert!(told.contains(key), "{told}");
    }
    let single = told(|text| {
        text.replace("\"joint\", \"badge\"", "\"single\", \"badge\"")
            .replace("method = \"badge\"", "method = \"single\"")
    });
    assert!(single.contains("have one exit"), "{single}");
}

#[test]
fn large_batches_are_made_of_several_passes() {
    let experiment = Experiment::parse("mine", TEXT, "mine.toml").unwrap();
    assert_eq!(experiment.budget.passes(16), (16, 1));
    assert_eq!(experiment.budget.passes(1024), (32, 32));
}
