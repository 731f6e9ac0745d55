//! `context.sh`: OpenNebula's `KEY='value'` lines, parsed exactly and never run.
//!
//! A value is a word as a POSIX shell would read it without expanding anything: pieces in single quotes,
//! in double quotes, or plain, one behind the other (`'it'\''s'`). Quoted pieces may hold newlines.
//! What would need a shell (`$`, backquotes, commands) is an error with its line.

use thiserror::Error;

pub use super::danger::danger;

/// One assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// Letters, digits and `_`, no digit first.
    pub name: String,
    /// As the shell would see it.
    pub value: String,
    /// Where it stands, from 1; 0 for one that was not read.
    pub line: usize,
    /// Whether the file itself puts it into the environment of what a script starts (`export`).
    pub exported: bool,
}

/// What is wrong with a line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("context.sh:{line}: {why}")]
pub struct ShellError {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub why: String,
}

impl ShellError {
    /// Something wrong with a variable: `context.sh:3: ETH0_MASK: why`.
    pub fn of(variable: &Variable, why: impl std::fmt::Display) -> Self {
        Self { line: variable.line, why: format!("{}: {why}", variable.name) }
    }
}

/// The file's bytes as text.
///
/// # Errors
/// Names the line that is none.
pub fn text(bytes: Vec<u8>) -> Result<String, ShellError> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        ShellError { line: good.filter(|&&byte| byte == b'\n').count() + 1, why: "not UTF-8".to_owned() }
    })
}

/// Reads the whole file.
///
/// # Errors
/// The first thing that is not an assignment, a comment or blank.
pub fn parse(text: &str) -> Result<Vec<Variable>, ShellError> {
    let mut reader = Reader { rest: text, line: 1, head: true, export: false };
    let mut variables: Vec<Variable> = Vec::new();
    while let Some(statement) = reader.statement()? {
        match statement {
            Statement::Assignment(variable) => variables.push(variable),
            // Of a variable that the file sets; others are none of its.
            Statement::Export(name) => {
                variables.iter_mut().filter(|each| each.name == name).for_each(|each| each.exported = true);
            }
        }
    }
    Ok(variables)
}

/// What scripts may see: each name once, with its last value, as a shell that reads the file would have it, and
/// none that would steer the shell itself. And a warning for each line that is left out.
pub fn usable(variables: Vec<Variable>) -> (Vec<Variable>, Vec<ShellError>) {
    let mut kept: Vec<Variable> = Vec::new();
    let mut warnings = Vec::new();
    for variable in variables {
        if let Some(why) = danger(&variable.name) {
            warnings.push(ShellError::of(&variable, format!("left out: {why}")));
            continue;
        }
        if let Some(at) = kept.iter().position(|earlier| earlier.name == variable.name) {
            let earlier = kept.remove(at);
            warnings.push(ShellError::of(&variable, format!("set in line {} already; this one counts", earlier.line)));
        }
        kept.push(variable);
    }
    (kept, warnings)
}

/// Whether a variable of this name would change how a shell, the loader or an interpreter works.
pub fn is_dangerous(name: &str) -> bool {
    danger(name).is_some()
}

/// The variables as a shell reads them back, each value in single quotes.
pub fn assignments(variables: &[Variable]) -> String {
    let line = |v: &Variable| {
        let export = if v.exported { "export " } else { "" };
        format!("{export}{}={}\n", v.name, quoted(&v.value))
    };
    variables.iter().map(line).collect()
}

/// A word that a shell takes as it is.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    /// Nothing of this command was read yet: only here `export` is one.
    head: bool,
    /// `export` stands at the head of this command.
    export: bool,
}

enum Statement {
    Assignment(Variable),
    /// `export NAME` without a value.
    Export(String),
}

impl Reader<'_> {
    fn statement(&mut self) -> Result<Option<Statement>, ShellError> {
        self.skip_blank();
        if self.rest.is_empty() {
            return Ok(None);
        }
        let head = std::mem::replace(&mut self.head, false);
        if let Some(rest) = self.rest.strip_prefix("export").filter(|rest| head && rest.starts_with([' ', '\t'])) {
            self.rest = rest.trim_start_matches([' ', '\t']);
            self.export = true;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.no_assignment());
        }
        let (name, line) = (name.to_owned(), self.line);
        match rest.chars().next() {
            Some('=') => {}
            None | Some(' ' | '\t' | '\r' | '\n' | ';') if self.export => {
                self.rest = rest;
                return Ok(Some(Statement::Export(name)));
            }
            _ => return Err(self.no_assignment()),
        }
        self.rest = rest.split_at(1).1;
        let value = self.word(&name)?;
        Ok(Some(Statement::Assignment(Variable { name, value, line, exported: self.export })))
    }

    /// Blanks, newlines, `;` between assignments, and comments.
    fn skip_blank(&mut self) {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '#' => self.rest = self.rest.find('\n').map_or("", |end| self.rest.split_at(end).1),
                // A shell wants something in front of it.
                ';' if self.head => return,
                ' ' | '\t' | '\r' | '\n' | ';' => {
                    self.head |= matches!(c, '\n' | ';');
                    self.export &= !self.head;
                    self.next();
                }
                _ => return,
            }
        }
    }

    fn word(&mut self, name: &str) -> Result<String, ShellError> {
        let mut value = String::new();
        // Where a plain `~` would be somebody's home: at the start, and after a plain `:`.
        let mut at_tilde = true;
        loop {
            let next = self.rest.chars().next();
            match next {
                None | Some(' ' | '\t' | '\r' | '\n' | ';') => return Ok(value),
                Some('\'') => self.single_quoted(name, &mut value)?,
                Some('"') => self.double_quoted(name, &mut value)?,
                Some('\\') => {
                    self.next();
                    // A line that goes on (POSIX 2.2.1).
                    value.extend(self.next().filter(|&c| c != '\n'));
                }
                Some('\0') => return Err(self.error(format!("{name}: a NUL in the value"))),
                // `*`, `?` and `[` are themselves here: no file names are looked for in an assignment (POSIX 2.9.1).
                Some(c @ ('$' | '`' | '(' | ')' | '<' | '>' | '|' | '&')) => {
                    return Err(self.error(format!("{name}: {c:?} outside quotes would need a shell")));
                }
                // Behind `export` it is a command's word: bash expands braces there, others file names.
                Some(c @ ('{' | '*' | '?' | '[')) if self.export => {
                    return Err(self.error(format!("{name}: {c:?} outside quotes would need a shell")));
                }
                Some('~') if at_tilde => {
                    return Err(self.error(format!("{name}: '~' outside quotes would need a shell")));
                }
                Some(_) => value.extend(self.next()),
            }
            at_tilde = next == Some(':');
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
    }

    #[test]
    fn values_are_what_a_shell_would_make_of_them() {
        let cases = [
            ("X=\"a\\\"b\\\\c\\n\"", "a\"b\\c\\n"),
            ("X=a\\ b\\'c", "a b'c"),
            ("X=one\\\ntwo", "onetwo"),
            ("X=\"one\\\ntwo\"", "onetwo"),
            ("X=http://h/?a=[1]*", "http://h/?a=[1]*"),
            ("X=a#b # a comment", "a#b"),
            ("X='a'\"b\"c''", "abc"),
            ("X=a~:b", "a~:b"),
            ("X='~'", "~"),
            ("X=a=b", "a=b"),
        ];
        for (text, value) in cases {
            assert_eq!(pairs(text), [("X".to_owned(), value.to_owned())], "{text:?}");
        }
    }

    #[test]
    fn a_variable_knows_its_line_and_whether_it_is_exported() {
        let text = "# c\nA='1\n2'\nexport B=1 C='2'; D=3\n\nE=4\nexport A\nexport UNSET\n";
        let found: Vec<_> = parse(text).unwrap().into_iter().map(|v| (v.name, v.line, v.exported)).collect();
        let wanted = [("A", 2, true), ("B", 4, true), ("C", 4, true), ("D", 4, false), ("E", 6, false)];
        assert_eq!(found, wanted.map(|(name, line, exported)| (name.to_owned(), line, exported)));
        assert_eq!(assignments(&parse("export A=1\nB=2").unwrap()), "export A='1'\nB='2'\n");
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
            ("A='x\n\n'\nB=\"x\n", "context.sh:4: B: the quote is never closed"),
            ("A=b c", "context.sh:1: \"c\" is not KEY='value'"),
            ("A=x&y", "context.sh:1: A: '&' outside quotes would need a shell"),
            ("A=~root", "context.sh:1: A: '~' outside quotes would need a shell"),
            ("A=/x:~/y", "context.sh:1: A: '~' outside quotes would need a shell"),
            ("A=x\0", "context.sh:1: A: a NUL in the value"),
            ("A='x\0'", "context.sh:1: A: a NUL in the value"),
            ("exported A=1", "context.sh:1: \"exported A=1\" is not KEY='value'"),
            ("export A={a,b}", "context.sh:1: A: '{' outside quotes would need a shell"),
            ("A=1\n;B=2", "context.sh:2: \";B=2\" is not KEY='value'"),
            ("A=1;;B=2", "context.sh:1: \";B=2\" is not KEY='value'"),
            ("A=1 export B=2", "context.sh:1: \"export B=2\" is not KEY='value'"),
            ("export -n A", "context.sh:1: \"-n A\" is not KEY='value'"),
            ("A+=b", "context.sh:1: \"A+=b\" is not KEY='value'"),
            ("A[0]=b", "context.sh:1: \"A[0]=b\" is not KEY='value'"),
        ];
        for (text, complaint) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), complaint, "{text:?}");
        }
    }

    #[test]
    fn each_name_counts_once_and_none_steers_the_shell() {
        let (kept, warnings) = usable(parse("A=1\nPATH=/evil\nB=2\nA=3\nA=4\n").unwrap());
        let kept: Vec<_> = kept.into_iter().map(|v| (v.name, v.value)).collect();
        assert_eq!(kept, [("B", "2"), ("A", "4")].map(|(n, v)| (n.to_owned(), v.to_owned())));
        let warnings: Vec<_> = warnings.iter().map(ShellError::to_string).collect();
        assert_eq!(
            warnings,
            [
                "context.sh:2: PATH: left out: it says where shells find programs",
                "context.sh:4: A: set in line 1 already; this one counts",
                "context.sh:5: A: set in line 4 already; this one counts",
            ]
        );
    }

    /// Every file that the writer makes reads back as what it was made of, and as what a shell makes of it.
    #[test]
    fn written_values_read_back_the_same() {
        const PIECES: &[&str] = &[
            "'", "''", "'\\''", "\\", "\n", "\r", "\"", "$(x)", "`", "#", ";", " ", "=", "\u{e9}", "\t", "A", "~", "!",
        ];
        // Numerical Recipes' generator: the same cases in each run.
        let mut state: u32 = 1;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for case in 0..5000 {
            let mut line = 1;
            let variables: Vec<Variable> = (0..random(4))
                .map(|at| {
                    let value: String = (0..random(9)).map(|_| PIECES[random(PIECES.len())]).collect();
                    let this = line;
                    line += value.matches('\n').count() + 1;
                    Variable { name: format!("V{at}_"), value, line: this, exported: random(2) == 1 }
                })
                .collect();
            let text = assignments(&variables);
            assert_eq!(parse(&text).unwrap(), variables, "case {case}: {text:?}");
        }
    }
}
