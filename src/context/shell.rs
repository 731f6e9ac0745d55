//! `context.sh`: OpenNebula's `KEY='value'` lines, parsed exactly and never run.
//!
//! A value is a word as a POSIX shell would read it without expanding anything: pieces in single quotes,
//! in double quotes, or plain, one behind the other (`'it'\''s'`). Quoted pieces may hold newlines.
//! What would need a shell (`$`, backquotes, commands) is an error with its line.

use thiserror::Error;

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Letters, digits and `_`, no digit first.
    pub name: String,
    /// As the shell would see it.
    pub value: String,
}

/// A line that is no assignment.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("context.sh:{line}: {why}")]
pub struct ShellError {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub why: String,
}

/// Reads the whole file.
///
/// # Errors
/// The first thing that is not an assignment, a comment or blank.
pub fn parse(text: &str) -> Result<Vec<Variable>, ShellError> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut variables = Vec::new();
    while let Some(variable) = reader.variable()? {
        variables.push(variable);
    }
    Ok(variables)
}

/// Whether a variable of this name would change how a shell or the loader works.
pub fn is_dangerous(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "PATH",
        "IFS",
        "ENV",
        "BASH_ENV",
        "SHELLOPTS",
        "BASHOPTS",
        "PS4",
        "CDPATH",
        "GLOBIGNORE",
        "HOME",
        "SHELL",
        "PWD",
        "OLDPWD",
        "OPTIND",
        "PPID",
        "UID",
        "EUID",
        "GCONV_PATH",
        "HOSTALIASES",
        "LOCALDOMAIN",
        "RES_OPTIONS",
        "TMPDIR",
        "PYTHONPATH",
        "PYTHONHOME",
        "PERL5LIB",
        "PERL5OPT",
        "PROMPT_COMMAND",
        "FUNCNEST",
        "TZDIR",
        "NLSPATH",
        "LOCPATH",
    ];
    NAMES.contains(&name) || name.starts_with("LD_") || name.starts_with("BASH_") || name.starts_with("MALLOC_")
}

/// The variables as a shell reads them back, each value in single quotes.
pub fn assignments(variables: &[Variable]) -> String {
    variables.iter().map(|variable| format!("{}={}\n", variable.name, quoted(&variable.value))).collect()
}

/// A word that a shell takes as it is.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn variable(&mut self) -> Result<Option<Variable>, ShellError> {
        self.skip_blank();
        if self.rest.is_empty() {
            return Ok(None);
        }
        if let Some(rest) = self.rest.strip_prefix("export ") {
            self.rest = rest.trim_start_matches([' ', '\t']);
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        let Some(value) = rest.strip_prefix('=') else { return Err(self.no_assignment()) };
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.no_assignment());
        }
        self.rest = value;
        let value = self.word(name)?;
        Ok(Some(Variable { name: name.to_owned(), value }))
    }

    /// Blanks, newlines, `;` between assignments, and comments.
    fn skip_blank(&mut self) {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '#' => self.rest = self.rest.find('\n').map_or("", |end| self.rest.split_at(end).1),
                ' ' | '\t' | '\r' | '\n' | ';' => {
                    self.next();
                }
                _ => return,
            }
        }
    }

    fn word(&mut self, name: &str) -> Result<String, ShellError> {
        let mut value = String::new();
        loop {
            match self.rest.chars().next() {
                None | Some(' ' | '\t' | '\r' | '\n' | ';') => return Ok(value),
                Some('\'') => self.single_quoted(name, &mut value)?,
                Some('"') => self.double_quoted(name, &mut value)?,
                Some('\\') => {
                    self.next();
                    value.extend(self.next());
                }
                Some(c @ ('$' | '`' | '(' | ')' | '<' | '>' | '|' | '&' | '*' | '?' | '[' | '\0')) => {
                    return Err(self.error(format!("{name}: {c:?} outside quotes would need a shell")));
                }
                Some(_) => value.extend(self.next()),
            }
        }
    }

    fn single_quoted(&mut self, name: &str, value: &mut String) -> Result<(), ShellError> {
        let opened = self.line;
        self.next();
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some('\0') => return Err(self.error(format!("{name}: a NUL in the value"))),
                Some(c) => value.push(c),
                None => return Err(unclosed(opened, name)),
            }
        }
    }

    fn double_quoted(&mut self, name: &str, value: &mut String) -> Result<(), ShellError> {
        let opened = self.line;
        self.next();
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some(c @ ('$' | '`')) => {
                    return Err(self.error(format!("{name}: {c:?} in double quotes would need a shell")));
                }
                // Within double quotes a backslash stays, but before these (POSIX 2.2.3).
                Some('\\') => match self.next() {
                    Some(c @ ('$' | '`' | '"' | '\\')) => value.push(c),
                    Some('\n') => {}
                    Some(c) => value.extend(['\\', c]),
                    None => return Err(unclosed(opened, name)),
                },
                Some('\0') => return Err(self.error(format!("{name}: a NUL in the value"))),
                Some(c) => value.push(c),
                None => return Err(unclosed(opened, name)),
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn no_assignment(&self) -> ShellError {
        let found: String = self.rest.lines().next().unwrap_or_default().chars().take(40).collect();
        self.error(format!("{found:?} is not KEY='value'"))
    }

    fn error(&self, why: String) -> ShellError {
        ShellError { line: self.line, why }
    }
}

fn unclosed(line: usize, name: &str) -> ShellError {
    ShellError { line, why: format!("{name}: the quote is never closed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|v| (v.name, v.value)).collect()
    }

    #[test]
    fn what_real_cds_hold() {
        let opennebula = "# Context variables generated by OpenNebula\nDISK_ID='1'\nETH0_IP='10.0.0.5'\n\
            NAME='it'\\''s'\nSCRIPT='line 1\nline 2'\nEMPTY=''\n";
        let wanted =
            [("DISK_ID", "1"), ("ETH0_IP", "10.0.0.5"), ("NAME", "it's"), ("SCRIPT", "line 1\nline 2"), ("EMPTY", "")];
        assert_eq!(pairs(opennebula), wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
        let vac = "ROOT_PUBKEY=root.pub\nEC2_USER_DATA=IyEvYmlu+/aA==\r\nONE_CONTEXT_PATH=\"/var/lib/amiconfig\"\nexport A=1; B=\n";
        let wanted = [
            ("ROOT_PUBKEY", "root.pub"),
            ("EC2_USER_DATA", "IyEvYmlu+/aA=="),
            ("ONE_CONTEXT_PATH", "/var/lib/amiconfig"),
            ("A", "1"),
            ("B", ""),
        ];
        assert_eq!(pairs(vac), wanted.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(pairs("X=\"a\\\"b\\\\c\\n\""), [("X".to_owned(), "a\"b\\c\\n".to_owned())]);
    }

    #[test]
    fn what_needs_a_shell_is_refused_with_its_line() {
        let cases = [
            ("A='1'\nB=$(reboot)\n", "context.sh:2: B: '$' outside quotes would need a shell"),
            ("A=\"`id`\"", "context.sh:1: A: '`' in double quotes would need a shell"),
            ("\n\nrm -rf /\n", "context.sh:3: \"rm -rf /\" is not KEY='value'"),
            ("1A=x", "context.sh:1: \"1A=x\" is not KEY='value'"),
            ("A='1\nB='2'\n", "context.sh:2: A: the quote is never closed"),
            ("A='x\n\n", "context.sh:1: A: the quote is never closed"),
            ("A=b c", "context.sh:1: \"c\" is not KEY='value'"),
            ("A=x&y", "context.sh:1: A: '&' outside quotes would need a shell"),
        ];
        for (text, complaint) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), complaint, "{text:?}");
        }
    }

    #[test]
    fn written_values_read_back_the_same() {
        let hostile = ["", "'", "a'b'c", "\n\n", "$(reboot) `x` \\ \" #", "\u{e9}\t;"];
        let variables: Vec<Variable> =
            hostile.iter().map(|value| Variable { name: "V".to_owned(), value: (*value).to_owned() }).collect();
        assert_eq!(parse(&assignments(&variables)).unwrap(), variables);
    }

    #[test]
    fn names_that_steer_a_shell_are_known() {
        for name in ["PATH", "LD_PRELOAD", "BASH_ENV", "IFS"] {
            assert!(is_dangerous(name), "{name}");
        }
        assert!(!is_dangerous("ETH0_IP") && !is_dangerous("PATHS"));
    }
}
