//! The tokens of Rust, as far as strings, words and brackets are to be told apart.

/// A token, and the line that it begins in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The line that it begins in, from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword.
    Word(String),
    /// A string of any kind, as it is written between its quotes.
    Text(String),
    /// A number or a character.
    Other,
    /// One character of anything else.
    Mark(char),
}

impl Token {
    /// Says whether this is a word, and which.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(own) if own == word)
    }

    /// Says whether this is a mark, and which.
    pub fn is_mark(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

/// Reads the tokens of a file; comments are none.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { chars: text.chars().collect(), at: 0, line: 1 };
    std::iter::from_fn(|| reader.next()).collect()
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Reader {
    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let line = self.line;
        let first = self.peek(0)?;
        let kind = match first {
            '"' => self.text(),
            '\'' if self.is_character() => self.character(),
            '\'' => self.mark(),
            _ if first.is_alphabetic() || first == '_' => self.word(),
            _ if first.is_ascii_digit() => {
                self.take_while(is_of_words);
                Kind::Other
            }
            _ => self.mark(),
        };
        Some(Token { line, kind })
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn step(&mut self) -> Option<char> {
        let next = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn mark(&mut self) -> Kind {
        self.step().map_or(Kind::Other, Kind::Mark)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(next) = self.peek(0).filter(|&next| wanted(next)) {
            taken.push(next);
            self.step();
        }
        taken
    }

    /// Goes past white space and comments, of which those between `/*` and `*/` may hold others.
    fn skip_blanks(&mut self) {
        let mut depth = 0;
        while let Some(next) = self.peek(0) {
            match (next, self.peek(1)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) if depth > 0 => depth -= 1,
                ('/', Some('/')) if depth == 0 => {
                    self.take_while(|next| next != '\n');
                    continue;
                }
                _ if depth > 0 || next.is_whitespace() => {
                    self.step();
                    continue;
                }
                _ => return,
            }
            self.step();
            self.step();
        }
    }

    /// A name, or a string or character behind the letters that say its kind.
    fn word(&mut self) -> Kind {
        let word = self.take_while(is_of_words);
        let hashes = (0..).take_while(|&ahead| self.peek(ahead) == Some('#')).count();
        match (word.as_str(), self.peek(hashes)) {
            ("r" | "br" | "cr", Some('"')) => self.raw_text(hashes),
            ("b" | "c", Some('"')) if hashes == 0 => self.text(),
            ("b", Some('\'')) if hashes == 0 => self.character(),
            // A keyword as a name.
            ("r", Some(_)) if hashes == 1 => {
                self.step();
                Kind::Word(self.take_while(is_of_words))
            }
            _ => Kind::Word(word),
        }
    }

    fn text(&mut self) -> Kind {
        self.step();
        let mut text = String::new();
        while let Some(next) = self.step().filter(|&next| next != '"') {
            text.push(next);
            if next == '\\' {
                text.extend(self.step());
            }
        }
        Kind::Text(text)
    }

    /// A string without escapes, between as many hashes.
    fn raw_text(&mut self, hashes: usize) -> Kind {
        (0..=hashes).for_each(|_| _ = self.step());
        let mut text = String::new();
        while let Some(next) = self.step() {
            if next == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                (0..hashes).for_each(|_| _ = self.step());
                break;
            }
            text.push(next);
        }
        Kind::Text(text)
    }

    /// Whether a quote begins a character, and no lifetime.
    fn is_character(&self) -> bool {
        self.peek(1) == Some('\\') || self.peek(2) == Some('\'')
    }

    fn character(&mut self) -> Kind {
        self.step();
        while let Some(next) = self.step().filter(|&next| next != '\'') {
            if next == '\\' {
                self.step();
            }
        }
        Kind::Other
    }
}

fn is_of_words(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_told_from_what_looks_like_them() {
        let text = r####"
        "plain" 'c' '"' '\'' b'"' &'a str // "comment"
        /* "outer" /* "inner" */ "still" */ b"bytes" c"c" r"raw\" r#"with " in it"# r#type
        "with \" in it" 1.5e3 'static "end"
    "####;
        let found: Vec<(usize, String)> = tokens(text)
            .into_iter()
            .filter_map(|token| match token.kind {
                Kind::Text(text) => Some((token.line, text)),
                _ => None,
            })
            .collect();
        let expected = [
            (2, "plain"),
            (3, "bytes"),
            (3, "c"),
            (3, r"raw\"),
            (3, "with \" in it"),
            (4, "with \\\" in it"),
            (4, "end"),
        ];
        assert_eq!(found, expected.map(|(line, text)| (line, text.to_string())));
        assert!(tokens(text).iter().any(|token| token.is_word("type")));
    }
}
