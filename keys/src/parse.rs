//! From the text of a file of keys to [`Keys`].

use core::ops::Range;
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use config::{LONGEST_WINDOW, SHORTEST_WINDOW, duration};
use serde::Deserialize;
use toml::Spanned;

use crate::{Hash, Key, KeyId, Keys, KeysError};

/// Most characters in the name of a key: it stands in one line of a log.
const LONGEST_NAME: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Spanned<String>,
    name: Spanned<String>,
    role: Spanned<String>,
    window: Option<Spanned<String>>,
    created: Spanned<String>,
    hash: Spanned<String>,
}

/// Reads a whole file; `path` is for messages.
///
/// # Errors
///
/// With the first mistake and its line.
pub fn keys(path: &Path, text: &str) -> Result<Keys, KeysError> {
    let file = file(path, text)?;
    let wrong = |span: Range<usize>, what: String| KeysError::at(path, text, &span, what);
    let mut keys = Vec::with_capacity(file.key.len());
    let mut ids = HashSet::new();
    let mut names = HashSet::new();
    for entry in file.key.into_iter().map(Spanned::into_inner) {
        let (id_span, name_span) = (entry.id.span(), entry.name.span());
        let key = key(entry).map_err(|(span, what)| wrong(span, what))?;
        if !ids.insert(key.id) {
            return Err(wrong(id_span, format!("key \"{}\": the id {} is used twice", key.name, key.id)));
        }
        if !names.insert(key.name.clone()) {
            let what = format!("the name \"{}\" is used twice; names must differ", key.name);
            return Err(wrong(name_span, what));
        }
        keys.push(key);
    }
    Ok(Keys::of(keys))
}

/// The lines of a key, from its `[[key]]` to the last of its values.
///
/// # Errors
///
/// With the first mistake and its line.
pub fn lines_of(path: &Path, text: &str, id: KeyId) -> Result<Option<Range<usize>>, KeysError> {
    let is_it = |entry: &&Spanned<Entry>| KeyId::parse(entry.get_ref().id.get_ref()) == Some(id);
    Ok(file(path, text)?.key.iter().find(is_it).map(|entry| {
        let Entry { id, name, role, window, created, hash } = entry.get_ref();
        let values = [id, name, role, created, hash].into_iter().chain(window);
        let start = entry.span().start;
        let end = values.map(|value| value.span().end).max().unwrap_or(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
        line_start..line_end
    }))
}

fn file(path: &Path, text: &str) -> Result<File, KeysError> {
    toml::from_str(text)
        .map_err(|error| KeysError::at(path, text, &error.span().unwrap_or(0..0), error.message()))
}

/// One `[[key]]`, or what is wrong where.
fn key(entry: Entry) -> Result<Key, (Range<usize>, String)> {
    let Entry { id, name, role, window, created, hash } = entry;
    check_name(name.get_ref()).map_err(|what| (name.span(), what))?;
    let name = name.into_inner();
    let wrong = |span, what: &str| (span, format!("key \"{name}\": {what}"));
    Ok(Key {
        id: KeyId::parse(id.get_ref())
            .ok_or_else(|| wrong(id.span(), &format!("\"id\" must be a UUID, not \"{}\"", id.get_ref())))?,
        role: role.get_ref().parse().map_err(|what: String| wrong(role.span(), &what))?,
        window: window
            .map(|window| check_window(window.get_ref()).map_err(|what| wrong(window.span(), &what)))
            .transpose()?,
        created: time(created.get_ref()).ok_or_else(|| {
            wrong(created.span(), "\"created\" must be a time like \"2026-01-31T12:00:00Z\"")
        })?,
        hash: hash.get_ref().parse::<Hash>().map_err(|what| wrong(hash.span(), &what))?,
        name,
    })
}

/// Whether a key may be called so: a name stands in logs, which nobody must be able to forge.
///
/// # Errors
///
/// With what a name may be.
pub fn check_name(name: &str) -> Result<(), String> {
    let well = !name.trim().is_empty()
        && name.trim() == name
        && name.chars().count() <= LONGEST_NAME
        && !name.chars().any(|c| c.is_control() || c == '"');
    if well {
        Ok(())
    } else {
        Err(format!(
            "a key's name has 1 to {LONGEST_NAME} characters, none of them a quotation mark or a control character, \
             and no space at its ends; not {name:?}"
        ))
    }
}

/// The window of a key's sessions, within the bounds of every window.
///
/// # Errors
///
/// With what it may be.
pub fn check_window(text: &str) -> Result<Duration, String> {
    let window = duration::parse(text).filter(|window| (SHORTEST_WINDOW..=LONGEST_WINDOW).contains(window));
    window.ok_or_else(|| {
        let bounds = [SHORTEST_WINDOW, LONGEST_WINDOW].map(duration::show);
        format!("a window is a duration from {} to {}, not \"{text}\"", bounds[0], bounds[1])
    })
}

fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}
