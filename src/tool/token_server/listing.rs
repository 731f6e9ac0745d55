//! Directories as tables: XHTML for people, JSON, CSV and tab-separated text for programs.

use serde_json::{Map, Value};

use super::reply::{PLAIN, XHTML, document, escape};
use super::request::Format;

/// A table that is written row by row; the first column is always `Name`.
pub(super) struct Listing {
    format: Format,
    title: String,
    columns: &'static [&'static str],
    rows: u64,
    text: String,
}

impl Listing {
    pub(super) fn new(format: Format, title: String, columns: &'static [&'static str]) -> Self {
        let text = match format {
            Format::Xhtml => {
                let heads: String = columns.iter().map(|column| format!("<th>{column}</th>")).collect();
                format!("<table><tr><th>Name</th>{heads}</tr>\n")
            }
            Format::Plain | Format::Tdv => format!("Name\t{}\r\n", columns.join("\t")),
            Format::Csv => format!("Name,{}\r\n", columns.join(",")),
            Format::Json => String::new(),
        };
        Self { format, title, columns, rows: 0, text }
    }

    /// One row: a name, which is also its relative URL, and a cell for each column. Cells of columns whose name
    /// ends in `HTML` are markup.
    pub(super) fn row<const N: usize>(&mut self, name: &str, cells: [String; N]) {
        debug_assert_eq!(self.columns.len(), N);
        match self.format {
            Format::Xhtml => {
                self.text.push_str(&format!("<tr><td><a href=\"{0}\">{0}</a></td>", escape(name)));
                for (column, cell) in self.columns.iter().zip(&cells) {
                    let cell = if column.ends_with("HTML") { cell.clone() } else { escape(cell) };
                    self.text.push_str(&format!("<td>{cell}</td>"));
                }
                self.text.push_str("</tr>\n");
            }
            Format::Csv => {
                self.text.push_str(&quoted(name));
                for cell in &cells {
                    self.text.push(',');
                    self.text.push_str(&quoted(cell));
                }
                self.text.push_str("\r\n");
            }
            Format::Plain | Format::Tdv => {
                let escape = |text: &str| text.replace('\t', "\\t").replace('\r', "\\r").replace('\n', "\\n");
                self.text.push_str(&escape(name));
                for cell in &cells {
                    self.text.push('\t');
                    self.text.push_str(&escape(cell));
                }
                self.text.push_str("\r\n");
            }
            Format::Json => {
                let cells = self.columns.iter().map(|column| column.to_string()).zip(cells.map(Value::String));
                let mut object: Map<String, Value> = cells.collect();
                object.insert("Name".to_owned(), Value::String(name.to_owned()));
                self.text.push(if self.rows == 0 { '[' } else { ',' });
                self.text.push_str(&Value::Object(object).to_string());
            }
        }
        self.rows += 1;
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The `Content-Type` and the body.
    pub(super) fn end(mut self) -> (&'static str, String) {
        match self.format {
            Format::Xhtml => {
                self.text.push_str("</table>");
                (XHTML, document(&self.title, &self.text))
            }
            Format::Plain => (PLAIN, self.text),
            Format::Tdv => ("text/tdv; charset=UTF-8", self.text),
            Format::Csv => ("text/csv; charset=UTF-8", self.text),
            // The original says null where there is nothing; clients know.
            Format::Json if self.rows == 0 => ("application/json; charset=UTF-8", "null".to_owned()),
            Format::Json => {
                self.text.push(']');
                ("application/json; charset=UTF-8", self.text)
            }
        }
    }
}

/// RFC 4180: quoted where it must be.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(format: Format, rows: &[(&str, [&str; 2])]) -> String {
        let mut listing = Listing::new(format, "T".to_owned(), &["A b", "LinkHTML"]);
        for (name, cells) in rows {
            listing.row(name, cells.map(str::to_owned));
        }
        listing.end().1
    }

    #[test]
    fn each_format_escapes_its_own() {
        let rows = [("1", ["a\t<\"\r\n", "<i/>"]), ("2", ["", ""])];
        assert_eq!(table(Format::Plain, &rows), "Name\tA b\tLinkHTML\r\n1\ta\\t<\"\\r\\n\t<i/>\r\n2\t\t\r\n");
        let csv = "Name,A b,LinkHTML\r\n1,\"a\t<\"\"\r\n\",<i/>\r\n2,,\r\n";
        assert_eq!(table(Format::Csv, &rows), csv);
        let json: Value = serde_json::from_str(&table(Format::Json, &rows)).unwrap();
        assert_eq!(json[0]["A b"], "a\t<\"\r\n");
        assert_eq!((&json[1]["Name"], &json[1]["LinkHTML"]), (&Value::from("2"), &Value::from("")));
        let xhtml = table(Format::Xhtml, &rows[1..]);
        assert!(xhtml.contains("<tr><td><a href=\"2\">2</a></td><td></td><td></td></tr>"), "{xhtml}");
        assert!(table(Format::Xhtml, &rows).contains("<td>a\t&lt;&quot;\u{fffd}\n</td><td><i/></td>"));
    }

    #[test]
    fn nothing_is_null_or_a_head() {
        assert_eq!(table(Format::Json, &[]), "null");
        assert_eq!(table(Format::Plain, &[]), "Name\tA b\tLinkHTML\r\n");
    }
}
