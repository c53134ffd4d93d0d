//! Asking for a password that is to be kept: on a terminal twice and unseen, from a program one line.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::{bail, ensure};
use keys::Password;

/// Most bytes of a line that are read: more is no password.
const LONGEST_LINE: u64 = 4_096;

/// Who knows the password.
pub enum Source<'a> {
    /// Somebody at a terminal, where this shows a prompt and reads a line without showing it.
    Person(&'a mut dyn FnMut(&str) -> io::Result<String>),
    /// A program that writes it as one line.
    Program(&'a mut dyn BufRead),
}

/// The password of a user, from whoever started this command.
///
/// # Errors
///
/// When there is none, it may not be one, or the terminal cannot be used.
pub fn ask_here(user: &str) -> anyhow::Result<Password> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let mut ask = |prompt: &str| rpassword::prompt_password(prompt);
        read(user, Source::Person(&mut ask))
    } else {
        read(user, Source::Program(&mut stdin.lock()))
    }
}

/// The password of a user.
///
/// # Errors
///
/// As for [`ask_here`].
pub fn read(user: &str, source: Source<'_>) -> anyhow::Result<Password> {
    let password = |text| Password::new(text, user).map_err(anyhow::Error::msg);
    match source {
        Source::Person(ask) => {
            let first = password(ask(&format!("Password for \"{user}\": "))?)?;
            let again = ask("Once more: ")?;
            ensure!(first.reveal() == again, "the two are not the same; nothing was changed");
            Ok(first)
        }
        Source::Program(input) => {
            let mut line = String::new();
            if input.take(LONGEST_LINE).read_line(&mut line)? == 0 {
                bail!("standard input ended where the password should be, as one line");
            }
            // Files made on Windows have a carriage return, too.
            let text = line.strip_suffix('\n').unwrap_or(&line);
            password(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_program(input: &str) -> Result<String, String> {
        read("ada", Source::Program(&mut input.as_bytes()))
            .map(|password| password.reveal().to_owned())
            .map_err(|error| error.to_string())
    }

    fn of_person(answers: &[&str]) -> (Result<String, String>, Vec<String>) {
        let (mut prompts, mut answers) = (Vec::new(), answers.iter());
        let mut ask = |prompt: &str| {
            prompts.push(prompt.to_owned());
            answers
                .next()
                .map(|answer| (*answer).to_owned())
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        let password = read("ada", Source::Person(&mut ask));
        let told = password.map(|password| password.reveal().to_owned()).map_err(|error| error.to_string());
        (told, prompts)
    }

    #[test]
    fn a_program_writes_one_line() {
        for input in ["correct horse\n", "correct horse", "correct horse\r\n", "correct horse\nanother\n"] {
            assert_eq!(of_program(input).as_deref(), Ok("correct horse"), "{input:?}");
        }
        assert!(of_program("").unwrap_err().contains("standard input ended"));
        for wrong in ["\n", "short\n", "with\ttabulator\n", &"x".repeat(5_000)] {
            let error = of_program(wrong).unwrap_err();
            assert!(error.starts_with("a password ") && !error.contains("tabulator"), "{error}");
        }
    }

    #[test]
    fn a_person_types_it_twice() {
        let (told, prompts) = of_person(&["correct horse", "correct horse"]);
        assert_eq!(told.as_deref(), Ok("correct horse"));
        assert_eq!(prompts, ["Password for \"ada\": ", "Once more: "]);
        let (told, _) = of_person(&["correct horse", "correct hores"]);
        let error = told.unwrap_err();
        assert!(error.contains("not the same") && !error.contains("hor"), "{error}");
        let (told, prompts) = of_person(&["short"]);
        assert!(
            told.unwrap_err().contains("at least 8") && prompts.len() == 1,
            "asked again for what cannot be"
        );
        assert!(of_person(&[]).0.is_err());
    }
}
