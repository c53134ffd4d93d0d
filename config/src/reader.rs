//! Takes one TOML table apart, key by key, remembering where each stood.
//!
//! A missing or wrong value notes a problem and yields a harmless stand-in, so that one pass finds
//! everything; the stand-ins never leave this crate, because a file with problems yields no `Config`.

use core::ops::{Range, RangeInclusive};
use std::time::Duration;

use drivers::{Settings, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::duration;

/// Where something stands in the file, in bytes.
pub type Span = Range<usize>;

/// Problems found so far.
#[derive(Debug, Default)]
pub struct Problems(pub Vec<(Span, String)>);

impl Problems {
    /// Notes a problem.
    pub fn note(&mut self, span: Span, text: impl Into<String>) {
        self.0.push((span, text.into()));
    }
}

/// One table that is being read.
pub struct Reader<'a> {
    table: Vec<(String, Span, &'a Spanned<DeValue<'a>>)>,
    span: Span,
    /// How messages call the table: `[supervisor]`, `motor "left"`.
    pub title: String,
}

impl<'a> Reader<'a> {
    /// A reader of a table.
    pub fn new(table: &'a DeTable<'a>, span: Span, title: impl Into<String>) -> Self {
        let table = table.iter().map(|(key, value)| (key.get_ref().to_string(), key.span(), value)).collect();
        Self { table, span, title: title.into() }
    }

    /// Where the table begins.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Where a key stands, or the table if it is missing.
    pub fn span_of(&self, key: &str) -> Span {
        self.table.iter().find(|(name, ..)| name == key).map_or(self.span(), |(_, span, _)| span.clone())
    }

    /// Where the first of these keys stands that is given; the table itself if none is.
    pub fn span_of_first(&self, keys: [&str; 2]) -> Span {
        let given = keys.iter().find(|wanted| self.table.iter().any(|(name, ..)| name == **wanted));
        self.span_of(given.unwrap_or(&keys[0]))
    }

    /// The keys not yet taken, and where each stands.
    pub fn places(&self) -> Vec<(String, Span)> {
        self.table.iter().map(|(key, span, _)| (key.clone(), span.clone())).collect()
    }

    /// Whether the key is there with a list.
    pub fn is_list(&self, key: &str) -> bool {
        self.table.iter().any(|(name, _, value)| name == key && value.get_ref().is_array())
    }

    /// Leaves a key aside of which a problem is already noted.
    pub fn skip(&mut self, key: &str) {
        self.take(key);
    }

    fn take(&mut self, key: &str) -> Option<(Span, &'a DeValue<'a>)> {
        let at = self.table.iter().position(|(name, ..)| name == key)?;
        let (_, span, value) = self.table.remove(at);
        Some((span, value.get_ref()))
    }

    /// Notes what is wrong with a key.
    pub fn wrong(&self, problems: &mut Problems, span: Span, key: &str, what: &str) {
        problems.note(span, format!("{}: \"{key}\" {what}", self.title));
    }

    fn missing(&self, problems: &mut Problems, key: &str, wanted: &str) {
        problems.note(self.span(), format!("{}: \"{key}\" is missing; give {wanted}", self.title));
    }

    /// A text, if the key is there.
    pub fn text(&mut self, problems: &mut Problems, key: &str) -> Option<(Span, String)> {
        match self.take(key)? {
            (span, DeValue::String(text)) if text.is_empty() => {
                self.wrong(problems, span, key, "must not be empty");
                None
            }
            (span, DeValue::String(text)) => Some((span, text.to_string())),
            (span, other) => {
                self.wrong(problems, span, key, &format!("must be a text, not a {}", other.type_str()));
                None
            }
        }
    }

    /// A text that must be there; `wanted` says what.
    pub fn required_text(&mut self, problems: &mut Problems, key: &str, wanted: &str) -> (Span, String) {
        if !self.table.iter().any(|(name, ..)| name == key) {
            self.missing(problems, key, wanted);
        }
        self.text(problems, key).unwrap_or((self.span(), String::new()))
    }

    /// A whole number in a range, if the key is there.
    pub fn integer(&mut self, problems: &mut Problems, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let (span, value) = self.take(key)?;
        let DeValue::Integer(number) = value else {
            self.wrong(problems, span, key, "must be a whole number");
            return None;
        };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let what = format!("must be {} to {}, not {}", range.start(), range.end(), number.as_str());
                self.wrong(problems, span, key, &what);
                None
            }
        }
    }

    /// A number in a range, if the key is there.
    pub fn number(&mut self, problems: &mut Problems, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let (span, value) = self.take(key)?;
        #[expect(clippy::cast_precision_loss, reason = "no range here reaches 2^52")]
        let (text, number) = match value {
            DeValue::Integer(number) => {
                let text = number.as_str();
                (text, i64::from_str_radix(text, number.radix()).ok().map(|number| number as f64))
            }
            DeValue::Float(number) => (number.as_str(), number.as_str().parse::<f64>().ok()),
            _ => {
                self.wrong(problems, span, key, "must be a number");
                return None;
            }
        };
        match number {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                let what = format!("must be {} to {}, not {text}", range.start(), range.end());
                self.wrong(problems, span, key, &what);
                None
            }
        }
    }

    /// A number in a range that must be there.
    pub fn required_number(&mut self, problems: &mut Problems, key: &str, range: RangeInclusive<f64>) -> f64 {
        if !self.table.iter().any(|(name, ..)| name == key) {
            self.missing(problems, key, &format!("a number from {} to {}", range.start(), range.end()));
        }
        let stand_in = *range.start();
        self.number(problems, key, range).unwrap_or(stand_in)
    }

    /// `true` or `false`, if the key is there.
    pub fn flag(&mut self, problems: &mut Problems, key: &str) -> Option<bool> {
        match self.take(key)? {
            (_, DeValue::Boolean(flag)) => Some(*flag),
            (span, _) => {
                self.wrong(problems, span, key, "must be true or false");
                None
            }
        }
    }

    /// A duration in a range, written as a text like `"250ms"`, or `default`.
    pub fn duration(
        &mut self,
        problems: &mut Problems,
        key: &str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.duration_if_given(problems, key, range).unwrap_or(default)
    }

    /// A duration in a range, if the key is there.
    pub fn duration_if_given(
        &mut self,
        problems: &mut Problems,
        key: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (span, text) = self.text(problems, key)?;
        match duration::parse(&text) {
            Some(duration) if range.contains(&duration) => Some(duration),
            Some(_) => {
                let bounds =
                    format!("[{}, {}]", duration::show(*range.start()), duration::show(*range.end()));
                self.wrong(problems, span, key, &format!("must be between {bounds}, not \"{text}\""));
                None
            }
            None => {
                let what = format!("must be a duration like \"250ms\", \"2s\" or \"1m\", not \"{text}\"");
                self.wrong(problems, span, key, &what);
                None
            }
        }
    }

    /// A list of texts, if the key is there.
    pub fn texts(&mut self, problems: &mut Problems, key: &str) -> Option<Vec<(Span, String)>> {
        let (span, value) = self.take(key)?;
        let DeValue::Array(array) = value else {
            self.wrong(problems, span, key, "must be a list of texts");
            return None;
        };
        let texts = array.iter().filter_map(|item| match item.get_ref() {
            DeValue::String(text) => Some((item.span(), text.to_string())),
            _ => {
                self.wrong(problems, item.span(), key, "must hold texts only");
                None
            }
        });
        Some(texts.collect())
    }

    /// A table below this one, or an empty one.
    pub fn table(&mut self, problems: &mut Problems, key: &str, title: &str) -> Option<Reader<'a>> {
        match self.take(key)? {
            (span, DeValue::Table(table)) => Some(Reader::new(table, span, title)),
            (span, _) => {
                self.wrong(problems, span, key, &format!("must be a table: [{key}]"));
                None
            }
        }
    }

    /// The tables of `[[key]]`.
    pub fn tables(&mut self, problems: &mut Problems, key: &str) -> Vec<Reader<'a>> {
        match self.take(key) {
            None => Vec::new(),
            Some((_, DeValue::Array(array))) => array
                .iter()
                .filter_map(|item| match item.get_ref() {
                    DeValue::Table(table) => Some(Reader::new(table, item.span(), format!("[[{key}]]"))),
                    _ => {
                        problems.note(item.span(), format!("\"{key}\" must hold tables: [[{key}]]"));
                        None
                    }
                })
                .collect(),
            Some((span, _)) => {
                problems.note(span, format!("\"{key}\" must be written as [[{key}]]"));
                Vec::new()
            }
        }
    }

    /// All keys not yet taken, as a family's own settings.
    pub fn rest(&mut self, problems: &mut Problems) -> Settings {
        let mut settings = Settings::default();
        for (key, span, value) in std::mem::take(&mut self.table) {
            let value = match value.get_ref() {
                DeValue::String(text) => Value::Text(text.to_string()),
                DeValue::Boolean(flag) => Value::Flag(*flag),
                DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => {
                        self.wrong(problems, span, &key, "is too large a number");
                        continue;
                    }
                },
                DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
                DeValue::Array(array) => match list(array) {
                    Some(list) => list,
                    None => {
                        self.wrong(problems, span, &key, "must be a list of texts or of whole numbers");
                        continue;
                    }
                },
                other => {
                    let what = format!("cannot be a {}", other.type_str());
                    self.wrong(problems, span, &key, &what);
                    continue;
                }
            };
            settings.insert(key, value);
        }
        settings
    }

    /// Notes every key that nobody took; `known` is what could have stood there.
    pub fn finish(self, problems: &mut Problems, known: &[&str]) {
        for (key, span, _) in &self.table {
            let text = format!("{}: unknown key \"{key}\"; known keys: {}", self.title, known.join(", "));
            problems.note(span.clone(), text);
        }
    }
}

/// A list of texts or of whole numbers; an empty one counts as texts.
fn list(array: &DeArray<'_>) -> Option<Value> {
    let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
    let whole = |item: &Spanned<DeValue<'_>>| {
        let number = item.get_ref().as_integer()?;
        i64::from_str_radix(number.as_str(), number.radix()).ok()
    };
    let texts: Option<Vec<String>> = array.iter().map(text).collect();
    let integers = || array.iter().map(whole).collect::<Option<Vec<i64>>>();
    texts.map(Value::Texts).or_else(|| integers().map(Value::Integers))
}
