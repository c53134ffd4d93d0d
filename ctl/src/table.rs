//! Plain text tables.

/// Which side a column's cells lean to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lean {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A column: its title, the most characters it may take, and its lean.
#[derive(Clone, Copy, Debug)]
pub struct Column(pub &'static str, pub usize, pub Lean);

const GAP: &str = "  ";

/// The title line and one line per row; columns are as wide as their widest cell, cells longer than
/// their column allows end in an ellipsis.
pub fn lines(columns: &[Column], rows: &[Vec<String>]) -> Vec<String> {
    let width = |index: usize, column: &Column| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        cells.chain([column.0.chars().count()]).max().unwrap_or(0).min(column.1)
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(|(index, column)| width(index, column)).collect();
    let line = |cells: &[&str]| {
        let padded = columns.iter().zip(&widths).zip(cells).map(|((column, width), cell)| {
            let cell = cut(cell, *width);
            match column.2 {
                Lean::Left => format!("{cell:<width$}"),
                Lean::Right => format!("{cell:>width$}"),
            }
        });
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let titles: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let rows = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    [line(&titles)].into_iter().chain(rows).collect()
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks a text at spaces into lines of at most `width` characters; a longer word gets its own line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_long_cells_are_cut() {
        let columns = [Column("NAME", 6, Lean::Left), Column("N", 5, Lean::Right)];
        let rows = [vec!["grün".to_owned(), "1".to_owned()], vec!["verylong".to_owned(), "234".to_owned()]];
        assert_eq!(lines(&columns, &rows), ["NAME      N", "grün      1", "veryl…  234"]);
    }

    #[test]
    fn long_texts_are_wrapped() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("", 8), [""; 0]);
    }
}
