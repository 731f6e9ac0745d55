//! What `docs/report.schema.json` promises of every machine's report.

use serde_json::{Map, Value};

const SCHEMA: &str = "docs/report.schema.json";

fn schema() -> Result<Value, String> {
    let text = include_str!("../../docs/report.schema.json");
    serde_json::from_str(text).map_err(|error| format!("{SCHEMA}: {error}"))
}

/// Checks a report against the schema.
#[cfg(feature = "host")]
pub fn check(report: &Value) -> Result<(), String> {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    let schema = schema()?;
    let id = schema["$id"].as_str().unwrap_or_default().to_owned();
    compiler.add_resource(&id, schema).map_err(|error| format!("{SCHEMA}: {error:#}"))?;
    let index = compiler.compile(&id, &mut schemas).map_err(|error| format!("{SCHEMA}: {error:#}"))?;
    schemas.validate(report, index).map_err(|error| format!("expected a report as in {SCHEMA}: {error:#}"))
}

/// There is no report to check inside a machine.
#[cfg(not(feature = "host"))]
pub fn check(_: &Value) -> Result<(), String> {
    Ok(())
}

/// The report with everything taken out that the schema marks as different from boot to boot.
pub fn steady(report: &Value) -> Result<Value, String> {
    let schema = schema()?;
    Ok(Steady { root: &schema }.value(&schema, report))
}

/// Follows a report and its schema side by side.
struct Steady<'a> {
    root: &'a Value,
}

impl Steady<'_> {
    fn value(&self, schema: &Value, value: &Value) -> Value {
        match (schema["x-varies"].as_str(), value) {
            // Whether there is one at all does not vary.
            (_, Value::Null) => return Value::Null,
            (Some("numbers"), Value::String(text)) => return without_numbers(text).into(),
            (Some(mark), _) => return mark.into(),
            (None, _) => {}
        }
        let schema = self.resolved(schema);
        match value {
            Value::Object(fields) => {
                let field = |(key, value): (&String, &Value)| {
                    (key.clone(), self.value(&schema["properties"][key.as_str()], value))
                };
                Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(|item| self.value(&schema["items"], item)).collect(),
            other => other.clone(),
        }
    }

    /// `$ref`, and the one alternative of `anyOf` that is not null.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            return self.resolved(&self.root["$defs"][name]);
        }
        match schema["anyOf"].as_array().and_then(|all| all.iter().find(|one| one["type"] != "null")) {
            Some(one) => self.resolved(one),
            None => schema,
        }
    }
}

/// `41 ms` and `7 ms` become the same.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() < part.len() {
            out.push('#');
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_marked_values_are_taken_out() {
        let schema = json!({
            "properties": {
                "same": {"type": "integer"},
                "time": {"$ref": "#/$defs/count", "x-varies": "time"},
                "why": {"x-varies": "numbers"},
                "list": {"items": {"anyOf": [{"$ref": "#/$defs/one"}, {"type": "null"}]}}
            },
            "$defs": {
                "count": {"type": "integer"},
                "one": {"properties": {"id": {"x-varies": "id"}, "name": {}}}
            }
        });
        let report = json!({
            "same": 1, "time": 5, "why": "2 drives, 41 ms", "list": [{"id": "a", "name": "b"}, null], "unknown": 7
        });
        let steady = Steady { root: &schema }.value(&schema, &report);
        let wanted = json!({
            "same": 1, "time": "time", "why": "# drives, # ms", "list": [{"id": "id", "name": "b"}, null], "unknown": 7
        });
        assert_eq!(steady, wanted);
    }

    #[test]
    #[cfg(feature = "host")]
    fn a_report_that_is_not_as_promised_is_seen() {
        let everything = include_str!("../../tests/fixtures/report/everything.json");
        let mut report: Value = serde_json::from_str(everything).unwrap();
        assert_eq!(check(&report), Ok(()));
        report["phases"][3]["surprise"] = json!(1);
        let complaint = check(&report).unwrap_err();
        assert!(complaint.contains("/phases/3") && complaint.contains("surprise"), "{complaint}");
    }

    #[test]
    fn numbers_are_taken_out_of_words() {
        assert_eq!(without_numbers("sleep (123)"), "sleep (#)");
        assert_eq!(without_numbers("12 and 3"), "# and #");
        assert_eq!(without_numbers(""), "");
    }
}
