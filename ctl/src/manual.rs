//! `lanyard completions` and `lanyard man`: what shells and man(1) know of this command.
//!
//! Both are written by the program itself, from the same description that reads its command line, so they cannot
//! differ from it.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

/// Writes the completions for a shell.
pub fn completions(mut command: Command, shell: Shell, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    Ok(out.write_all(&script)?)
}

/// Writes a page for the command and one for each of its subcommands into a folder that is there: `lanyard.1`,
/// `lanyard-status.1`, `lanyard-keys-add.1`.
pub fn pages(command: Command, folder: &Path) -> anyhow::Result<()> {
    // Each page names its subcommands' pages; of `help` there is none.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, command.get_name(), folder)
}

fn page(command: &Command, name: &str, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}.1"));
    fs::write(&path, render(command, name)?).with_context(|| format!("cannot write {}", path.display()))?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        page(subcommand, &format!("{name}-{}", subcommand.get_name()), folder)?;
    }
    Ok(())
}

fn render(command: &Command, name: &str) -> anyhow::Result<Vec<u8>> {
    let man = clap_mangen::Man::new(command.clone()).title(name).manual("Lanyard");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    // What follows --help is set in columns, which clap's own rendering would fill to paragraphs.
    if let Some(columns) = command.get_after_help() {
        writeln!(text, ".SH NOTES\n.nf\n{}.fi", literal(&columns.to_string()))?;
    }
    writeln!(
        text,
        ".SH \"SEE ALSO\"\n.BR lanyard (1),\n.BR lanyard.toml (5),\n.BR lanyard\\-supervisor (8)"
    )?;
    Ok(text)
}

/// Text as it is, for roff: no line of it is a request, no sign of it means anything.
fn literal(text: &str) -> String {
    let escape = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
        if line.starts_with('.') { format!("\\&{line}\n") } else { format!("{line}\n") }
    };
    text.lines().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};
    use clap_complete::Shell;

    use super::{completions, literal, pages};

    fn command() -> Command {
        Command::new("tool").version("1").subcommand(
            Command::new("keys")
                .about("Keys")
                .subcommand(Command::new("add").arg(Arg::new("role").long("role"))),
        )
    }

    #[test]
    fn every_shell_knows_the_subcommands_and_their_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            completions(command(), shell, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(
                ["tool", "keys", "add", "role"].iter().all(|word| text.contains(word)),
                "{shell}: {text}"
            );
        }
    }

    #[test]
    fn every_subcommand_has_a_page() {
        let folder = std::env::temp_dir().join(format!("lanyard-pages-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        pages(command(), &folder).unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        let add = std::fs::read_to_string(folder.join("tool-keys-add.1")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["tool-keys-add.1", "tool-keys.1", "tool.1"]);
        assert!(add.contains("\\-\\-role"), "{add}");
    }

    #[test]
    fn no_line_of_a_text_is_taken_for_a_request() {
        assert_eq!(literal(".SH x\n'y' a-b\n"), "\\&.SH x\n\\(aqy\\(aq a\\-b\n");
    }
}
