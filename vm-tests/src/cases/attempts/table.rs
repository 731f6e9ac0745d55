//! Tables of the probe, as the docs have them.

use std::fs;
use std::path::Path;

/// Where they are written.
const PLACE: &str = "target/attempts";

/// One table.
pub struct Table {
    name: &'static str,
    text: String,
}

impl Table {
    /// With these columns.
    pub fn new(name: &'static str, columns: &[&str]) -> Self {
        let mut table = Self { name, text: String::new() };
        table.row(columns);
        table.row(&vec!["---"; columns.len()]);
        table
    }

    /// One more row.
    pub fn row(&mut self, cells: &[&str]) {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        self.text += &format!("| {} |\n", cells.join(" | "));
    }

    /// Writes it.
    pub fn write(&self) -> Result<(), String> {
        let path = Path::new(PLACE).join(self.name).with_extension("md");
        let written = fs::create_dir_all(PLACE).and_then(|()| fs::write(&path, &self.text));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_one() {
        let mut table = Table::new("x", &["a", "b"]);
        table.row(&["1|2", "3"]);
        assert_eq!(table.text, "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |\n");
    }
}
