//! The simple commands of a shell script, as far as they can be read without running it.
//!
//! This is no shell: functions, loops and conditions are flattened to the commands in them, nothing is expanded.
//! It is good enough to name what a script may do, never to say what it does.

/// One simple command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Of its first word, from 1.
    pub line: usize,
    /// Assignments before it, the program, its arguments.
    pub words: Vec<Word>,
    /// Targets of `>`, `>>`, `>|`, `&>` and `<>`.
    pub writes: Vec<Word>,
}

/// A word without its quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// With expansions as they are written.
    pub text: String,
    /// Bytes of it before the first expansion; all of it if there is none.
    pub literal: usize,
}

impl Word {
    /// Whether nothing in it is expanded.
    pub fn is_literal(&self) -> bool {
        self.literal == self.text.len()
    }

    /// Up to the first expansion.
    pub fn prefix(&self) -> &str {
        self.text.get(..self.literal).unwrap_or_default()
    }
}

impl Command {
    /// The program's name without its directory, and its arguments; assignments and words such as `sudo` are passed over.
    pub fn program(&self) -> Option<(&str, &[Word])> {
        const BEFORE: &[&str] = &["sudo", "command", "builtin", "exec", "nohup", "env", "nice", "ionice", "time"];
        let mut words = self.words.as_slice();
        loop {
            let (first, rest) = words.split_first()?;
            let name = first.text.rsplit('/').next().unwrap_or_default();
            if first.assignment().is_some() || BEFORE.contains(&name) {
                words = rest;
            } else {
                return Some((name, rest));
            }
        }
    }
}

impl Word {
    /// `name` and `value` of `name=value`.
    pub fn assignment(&self) -> Option<(&str, &str)> {
        let (name, value) = self.text.split_once('=')?;
        let is_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        is_name.then_some((name, value))
    }
}

/// Words that begin or end a compound command and are followed by a simple one.
const RESERVED: &[&str] = &["if", "then", "elif", "else", "while", "until", "do", "!", "{"];
/// Nesting of command substitutions that is looked into.
const MAX_DEPTH: usize = 8;

/// Reads a script; what it cannot make sense of, it passes over.
pub fn commands(script: &str) -> Vec<Command> {
    let mut lexer =
        Lexer { rest: script, line: 1, depth: 0, current: Command::default(), all: Vec::new(), here: Vec::new() };
    lexer.run();
    lexer.all
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    depth: usize,
    current: Command,
    all: Vec<Command>,
    /// Here-documents whose text begins on the next line.
    here: Vec<String>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(c) = self.peek() {
            match c {
                '\n' => {
                    self.next();
                    self.end();
                    self.skip_here_documents();
                }
                ' ' | '\t' | '\r' => self.skip(1),
                '\\' if self.rest.starts_with("\\\n") => self.skip(2),
                '#' => self.rest = self.rest.find('\n').map_or("", |end| self.rest.split_at(end).1),
                '&' if self.rest.starts_with("&>") => {
                    self.next();
                    self.redirect();
                }
                ';' | '&' | '|' | '(' | ')' => {
                    self.next();
                    self.end();
                }
                '<' | '>' => self.redirect(),
                _ => self.argument(),
            }
        }
        self.end();
    }

    fn end(&mut self) {
        let command = std::mem::take(&mut self.current);
        if !command.words.is_empty() || !command.writes.is_empty() {
            self.all.push(command);
        }
    }

    fn argument(&mut self) {
        let line = self.line;
        let word = self.word();
        // `2>file`: the number belongs to the redirection.
        let number = word.text.bytes().all(|b| b.is_ascii_digit()) && !word.text.is_empty();
        if number && self.peek().is_some_and(|c| matches!(c, '<' | '>')) {
            return;
        }
        if self.current.words.is_empty() && RESERVED.contains(&word.text.as_str()) {
            return;
        }
        if self.current.words.is_empty() {
            self.current.line = line;
        }
        self.current.words.push(word);
    }

    fn redirect(&mut self) {
        let line = self.line;
        let operator: String = self.rest.chars().take_while(|c| matches!(c, '<' | '>' | '&' | '|')).take(3).collect();
        // `<(` and `>(` hold commands; `>&2` and `<&3` name a descriptor.
        let operator = ["<<<", "<<-", "<<", "<>", ">>", ">|", ">&", "<&", ">", "<"]
            .into_iter()
            .find(|known| self.rest.starts_with(known))
            .unwrap_or(&operator)
            .to_owned();
        self.skip(operator.chars().count().max(1));
        if self.peek() == Some('(') {
            return;
        }
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.next();
        }
        let word = self.word();
        match operator.as_str() {
            "<<" | "<<-" => self.here.push(word.text),
            ">" | ">>" | ">|" | "<>" => self.write(word, line),
            // `>&file` of bash.
            ">&" if word.text.starts_with('/') => self.write(word, line),
            _ => {}
        }
    }

    fn write(&mut self, word: Word, line: usize) {
        if self.current.words.is_empty() && self.current.writes.is_empty() {
            self.current.line = line;
        }
        self.current.writes.push(word);
    }

    fn word(&mut self) -> Word {
        let mut text = String::new();
        let mut literal = None;
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\'' => {
                    self.next();
                    while let Some(c) = self.next().filter(|&c| c != '\'') {
                        text.push(c);
                    }
                }
                '"' => {
                    self.next();
                    while let Some(c) = self.peek().filter(|&c| c != '"') {
                        match c {
                            '$' | '`' => self.expansion(&mut text, &mut literal),
                            '\\' => {
                                self.next();
                                text.extend(self.next());
                            }
                            _ => text.extend(self.next()),
                        }
                    }
                    self.next();
                }
                '\\' => {
                    self.next();
                    text.extend(self.next().filter(|&c| c != '\n'));
                }
                '$' | '`' => self.expansion(&mut text, &mut literal),
                '*' | '?' | '[' => {
                    literal.get_or_insert(text.len());
                    text.extend(self.next());
                }
                _ => text.extend(self.next()),
            }
        }
        let literal = literal.unwrap_or(text.len());
        Word { text, literal }
    }

    /// `$name`, `${...}`, `$(...)`, backquotes: kept as written; commands inside are read as well.
    fn expansion(&mut self, text: &mut String, literal: &mut Option<usize>) {
        literal.get_or_insert(text.len());
        let line = self.line;
        let closing = if self.rest.starts_with("$(") {
            ')'
        } else if self.rest.starts_with("${") {
            '}'
        } else if self.rest.starts_with('`') {
            '`'
        } else {
            text.extend(self.next());
            return;
        };
        let whole = self.rest;
        let start = if closing == '`' { 1 } else { 2 };
        self.skip(start);
        let inner = self.rest;
        let mut depth = 1usize;
        while let Some(c) = self.next() {
            match c {
                '\\' => {
                    self.next();
                }
                c if c == closing => depth -= 1,
                '(' if closing == ')' => depth += 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        text.push_str(whole.get(..whole.len() - self.rest.len()).unwrap_or_default());
        let inner = inner.get(..(inner.len() - self.rest.len()).saturating_sub(1)).unwrap_or_default();
        // `$((` is arithmetic, where `<` and `>` are no redirections.
        if closing != '}' && !inner.starts_with('(') && self.depth < MAX_DEPTH {
            let (depth, all) = (self.depth + 1, Vec::new());
            let mut nested = Lexer { rest: inner, line, depth, current: Command::default(), all, here: Vec::new() };
            nested.run();
            self.all.append(&mut nested.all);
        }
    }

    fn skip_here_documents(&mut self) {
        for end in std::mem::take(&mut self.here) {
            while !self.rest.is_empty() {
                let line = self.rest.split('\n').next().unwrap_or_default();
                let last = line.trim_start_matches('\t').trim_end_matches('\r') == end;
                self.skip(line.chars().count() + 1);
                if last {
                    break;
                }
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            self.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `line: words > writes`, a string each.
    fn read(script: &str) -> Vec<String> {
        let texts = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect::<Vec<_>>();
        let one = |c: &Command| {
            let writes: String = texts(&c.writes).iter().map(|write| format!(" > {write}")).collect();
            format!("{}: {}{writes}", c.line, texts(&c.words).join(" "))
        };
        commands(script).iter().map(one).collect()
    }

    #[test]
    fn commands_are_found_wherever_they_stand() {
        let cases: &[(&str, &[&str])] = &[
            ("a b;c && d|e & f", &["1: a b", "1: c", "1: d", "1: e", "1: f"]),
            ("if [ -r /x ]; then . /x; fi\n! a", &["1: [ -r /x ]", "1: . /x", "1: fi", "2: a"]),
            (
                "case $1 in\nstart) a ;;\nstop)\nb\nesac",
                &["1: case $1 in", "2: start", "2: a", "3: stop", "4: b", "5: esac"],
            ),
            ("f() { a; }", &["1: f", "1: a", "1: }"]),
            ("a 'b c' \"d  e\" f\\ g # h", &["1: a b c d  e f g"]),
            ("a \\\n  b\nc", &["1: a b", "3: c"]),
            ("a >/x 2>>/y <z 2>&1 >&2", &["1: a > /x > /y"]),
            ("cat <<EOF >/x\nrm /y\nEOF\nb", &["1: cat > /x", "4: b"]),
            ("cat <<-'END'\n\trm /y\n\tEND\nb <<< c", &["1: cat", "4: b"]),
            ("a=\"$(b >/x)\" `c`", &["1: b > /x", "1: c", "1: a=$(b >/x) `c`"]),
            ("a $((1 > 2)) ${x:-y}", &["1: a $((1 > 2)) ${x:-y}"]),
            ("{ a; } >/x &>/y", &["1: a", "1: } > /x > /y"]),
            ("> /x", &["1:  > /x"]),
            ("'", &["1: "]),
            ("$(", &["1: $("]),
        ];
        for (script, expected) in cases {
            assert_eq!(read(script), *expected, "{script}");
        }
    }

    #[test]
    fn programs_and_assignments() {
        let all = commands("A=1 sudo /usr/sbin/tee -a \"/etc/$x/y\"\nB='c d'");
        let (name, arguments) = all[0].program().unwrap();
        assert_eq!((name, arguments[1].text.as_str(), arguments[1].prefix()), ("tee", "/etc/$x/y", "/etc/"));
        assert!(arguments[0].is_literal() && !arguments[1].is_literal());
        assert_eq!(all[1].words[0].assignment(), Some(("B", "c d")));
        assert_eq!((all[1].program(), all[1].line), (None, 2));
    }
}
