//! Names with their values, aligned: what commands print that describe one thing.

use badge_lab::table::display_width;

/// A list of facts under headings.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    rows: Vec<(&'static str, String)>,
}

impl Facts {
    /// Adds a fact; a value of several lines stays aligned.
    pub(crate) fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.rows.push((name, value.into()));
    }

    /// One fact per line, values in one column.
    pub(crate) fn to_text(&self) -> String {
        let names = self.rows.iter().map(|(name, _)| display_width(name));
        let width = names.max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &self.rows {
            for (number, line) in value.lines().enumerate() {
                let name = if number == 0 { name } else { "" };
                text += format!("{name:width$}  {line}").trim_end();
                text.push('\n');
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_one_column() {
        let mut facts = Facts::default();
        facts.add("family", "albert");
        facts.add("exits", "1, 2\n3");
        assert_eq!(facts.to_text(), "family  albert\nexits   1, 2\n        3\n");
    }
}
