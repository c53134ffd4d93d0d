//! The manual page lanyard.toml(5), out of the example of that file.
//!
//! What lives here: the translation of `lanyard.example.toml`, where every key is explained, to roff. There is no second
//! text that could say something else.

use std::fmt::Write as _;

/// The page. A comment is the text of the settings under it; a comment between two rules is the title of a chapter.
pub fn page(example: &str, version: &str) -> String {
    let mut page = Page { out: String::new(), text: Vec::new(), settings: Vec::new() };
    let _ = writeln!(page.out, ".TH LANYARD.TOML 5 \"\" \"Lanyard {version}\" \"Lanyard\"");
    page.out.push_str(".SH NAME\nlanyard.toml \\- configuration of a robot guarded by Lanyard\n");
    page.out.push_str(".SH SYNOPSIS\n\\fI/etc/lanyard/lanyard.toml\\fP\n.SH DESCRIPTION\n");
    let mut title = Title::None;
    for line in example.lines() {
        let rule = line.starts_with("# -----");
        match (
            &title,
            line.strip_prefix("# ").or_else(|| line.strip_prefix('#').filter(|rest| rest.is_empty())),
        ) {
            (Title::None, _) if rule => {
                page.end();
                title = Title::Open;
            }
            (Title::Open, _) if rule => {
                page.chapter();
                title = Title::None;
            }
            (_, Some(text)) => page.comment(text),
            (_, None) if line.is_empty() => page.end(),
            (_, None) => page.settings.push(line.to_owned()),
        }
    }
    page.end();
    page.out.push_str(
        ".SH \"SEE ALSO\"\n.BR lanyard (1),\n.BR lanyard\\-check (1),\n.BR lanyard\\-supervisor (8),\n",
    );
    page.out.push_str(".I /usr/share/doc/lanyard/drives.md\n");
    page.out
}

/// Where a line is: between the two rules of a title, or not.
enum Title {
    None,
    Open,
}

struct Page {
    out: String,
    text: Vec<String>,
    settings: Vec<String>,
}

impl Page {
    /// A line of a comment. Behind settings it is about the next ones.
    fn comment(&mut self, text: &str) {
        if !self.settings.is_empty() {
            self.end();
        }
        self.text.push(text.to_owned());
    }

    /// Everything up to here belongs together.
    fn end(&mut self) {
        let (text, settings) = (std::mem::take(&mut self.text), std::mem::take(&mut self.settings));
        match (text.is_empty(), settings.is_empty()) {
            (true, true) => {}
            (false, true) => {
                self.out.push_str(".PP\n");
                self.paragraph(&text);
            }
            (true, false) => {
                self.out.push_str(".PP\n.nf\n");
                for line in &settings {
                    let _ = writeln!(self.out, "\\fB{}\\fP", escape(line));
                }
                self.out.push_str(".fi\n");
            }
            (false, false) => {
                for (index, line) in settings.iter().enumerate() {
                    let request = if index == 0 { ".TP" } else { ".TQ" };
                    let _ = writeln!(self.out, "{request}\n\\fB{}\\fP", escape(line));
                }
                self.paragraph(&text);
            }
        }
    }

    /// What is between two rules: its beginning is the title.
    fn chapter(&mut self) {
        let text = std::mem::take(&mut self.text);
        let whole = text.join(" ");
        let title = whole.split([':', '.', ',']).next().unwrap_or_default();
        let _ = writeln!(self.out, ".SH \"{}\"", escape(&title.to_uppercase()));
        self.paragraph(&text);
    }

    /// Lines are filled; one that is set in, as in a list, begins anew unless it goes on with the item before it.
    fn paragraph(&mut self, lines: &[String]) {
        let mut item = 0;
        for line in lines {
            let text = line.trim_start();
            let indent = line.len() - text.len();
            if text.is_empty() {
                self.out.push_str(".PP\n");
            } else if indent > 0 && (item == 0 || indent <= item) {
                let _ = writeln!(self.out, ".br\n{}{}", "\\ ".repeat(indent), escape(text));
            } else {
                if indent == 0 && item > 0 {
                    self.out.push_str(".br\n");
                }
                let _ = writeln!(self.out, "{}", escape(text));
            }
            // A line further in goes on with the item it follows.
            item = if indent == 0 {
                0
            } else if item == 0 {
                indent
            } else {
                item.min(indent)
            };
        }
    }
}

/// Text in which no sign means anything to roff.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    if text.starts_with(['.', '\'']) {
        escaped.push_str("\\&");
    }
    for sign in text.chars() {
        match sign {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '"' => escaped.push_str("\\(dq"),
            '~' => escaped.push_str("\\(ti"),
            '^' => escaped.push_str("\\(ha"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::page;
    use crate::workspace::Workspace;

    #[test]
    fn a_setting_is_explained_by_the_comment_above_it() {
        let text = "# --------\n# The front: who serves.\n# --------\n[front]\n\n# Where. Default: \"x\".\n#   a: one\n#      goes on\n#listen = \"x\"\n#two = 2\n";
        let page = page(text, "1");
        assert!(page.contains(".SH \"THE FRONT\"\nThe front: who serves.\n"), "{page}");
        let setting =
            ".TP\n\\fB#listen = \\(dqx\\(dq\\fP\n.TQ\n\\fB#two = 2\\fP\nWhere. Default: \\(dqx\\(dq.\n";
        assert!(page.contains(setting), "{page}");
        assert!(page.contains(".br\n\\ \\ a: one\ngoes on\n"), "{page}");
    }

    /// A key that a robot engineer looks for with man(1) is there.
    #[test]
    fn every_setting_of_the_example_is_in_the_page() {
        let root = Workspace::find().unwrap().root;
        let example = fs::read_to_string(root.join("lanyard.example.toml")).unwrap();
        let page = page(&example, "1").replace("\\-", "-");
        let mut seen = 0;
        for line in example.lines().filter(|line| !line.starts_with("# ") && line.contains(" = ")) {
            let key = line.split(" = ").next().unwrap();
            assert!(page.lines().any(|there| there.starts_with(&format!("\\fB{key} = "))), "{key}");
            seen += 1;
        }
        assert!(seen > 50, "{seen}");
    }
}
